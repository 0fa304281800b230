"""The report's page in a real browser: silent, by keyboard, without scripts, on a phone and in print."""

import re
import time

import pytest
from support.browser import CHROMIUM, Browser
from support.example_study import write_study

from batchscale.records.findings import Table, read_findings
from batchscale.report.page import write_report
from batchscale.report.page.html import render
from batchscale.report.page.runs import read_runs

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)")
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>"
NOISE = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return write_report(folder)


def requests(browser):
    return [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]


def noise(browser):
    time.sleep(0.05)
    browser("Browser.getVersion")  # takes events in; a page without scripts has no timers to wait for
    return [event for event in browser.events if event["method"] in NOISE]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_silent_whole_and_no_wider_than_the_window(browser, page, width, scheme):
    browser.media(prefers_color_scheme=scheme)
    browser.open(page, width)
    browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert noise(browser) == []
    assert requests(browser) == [page.as_uri()]
    assert browser.js("document.documentElement.scrollWidth") <= width
    paper = browser.js("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 60) == (scheme == "dark")
    letters = "parseFloat(getComputedStyle(document.querySelector('.drawing text')).fontSize)"
    shrunk = "document.querySelector('.drawing').getBoundingClientRect().width / 640"
    assert browser.js(f"{letters} * {shrunk}") >= 9.5
    assert browser.js("document.querySelectorAll('.series use').length") > 30
    browser.media()


@pytest.mark.parametrize("width", [360, 1280])
def test_captions_stay_in_the_window_beside_tables_that_scroll(browser, page, tmp_path, width):
    words = "Every word of this stands beside the table, not in what scrolls. " * 8
    wide = Table(title="Wide", columns=tuple(f"a column {n}" for n in range(40)), rows=((1.5,) * 40,), caption=words)
    findings = read_findings(page.parent).model_copy(update={"tables": (wide,)})
    file = tmp_path / "report.html"
    file.write_text(render(findings, read_runs(page.parent)[0]), encoding="utf-8")
    browser.open(file, width)
    browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    ends = browser.js(
        "[...document.querySelectorAll('table')].map(table => {"
        "const name = table.caption || document.getElementById(table.getAttribute('aria-labelledby'));"
        "const text = document.createRange(); text.selectNodeContents(name);"
        "return [table.offsetWidth, text.getBoundingClientRect().right] })"
    )
    assert max(table for table, _ in ends) > width
    assert max(text for _, text in ends) <= width
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    names = {n.get("name", {}).get("value", "").strip() for n in nodes if n["role"]["value"] == "table"}
    assert f"Wide {words}".strip() in names


def test_the_legend_hides_a_series_by_keyboard(browser, page):
    browser.open(page)
    browser.js("document.querySelector('#figure-1 button.entry').focus()")
    hidden = "getComputedStyle(document.querySelector('#figure-1 [data-series=\"0\"]')).display === 'none'"
    pressed = "document.activeElement.getAttribute('aria-pressed')"
    assert (browser.js(hidden), browser.js(pressed)) == (False, "true")
    browser.key("Enter")
    assert (browser.js(hidden), browser.js(pressed)) == (True, "false")
    browser.key("Tab")
    assert browser.js("document.activeElement.textContent.trim()") == "linear, no warmup"
    for _ in range(3):
        browser.key("Tab")
    assert browser.js("document.activeElement.getAttribute('role')") == "slider"
    assert browser.js("document.activeElement.getAttribute('aria-valuetext')").startswith("linear, no warmup")


def test_arrows_lead_along_the_points_and_enter_to_a_run(browser, page):
    figure = read_findings(page.parent).figures[0]
    browser.open(page)
    browser.js("document.querySelector('#figure-1 .slider').focus({focusVisible: true})")
    tip = "document.querySelector('#figure-1 .tip')"
    lines = browser.js(f"{tip}.textContent").split("\n")
    assert lines[:2] == ["linear, warmup", "minibatch kn, images: 64"]
    assert lines[2].startswith(f"test error, %: {figure.series[0].y[0]:.4g} (")
    browser.key("ArrowRight")
    assert "images: 128" in browser.js(f"{tip}.textContent")
    browser.key("ArrowDown")
    said = browser.js("document.activeElement.getAttribute('aria-valuetext')")
    assert said.startswith(f"linear, no warmup, minibatch kn, images: 128, test error, %: {figure.series[1].y[1]:.4g}")
    inside = f"(() => {{ const b = {tip}.getBoundingClientRect(); return b.left >= 0 && b.right <= innerWidth }})()"
    for name in ("End", "ArrowRight", "ArrowUp", "ArrowUp", "Home"):
        browser.key(name)
        assert browser.js(inside)
    browser.key("Escape")
    assert browser.js(f"{tip}.hidden")
    browser.key("ArrowRight")
    browser.key("ArrowRight")
    browser.key("Enter")
    name = browser.js("document.activeElement.closest('details[open]').querySelector('.name').textContent")
    place = browser.js("Number(document.querySelector('#figure-1 .slider').getAttribute('aria-valuenow')) - 1")
    assert name in {series.runs[place] for series in figure.series}


def test_a_pointer_near_a_point_shows_it(browser, page):
    tip = "document.querySelector('#figure-2 .tip')"
    browser.open(page, 390, 844)
    browser.js("document.querySelector('#figure-2').scrollIntoView({behavior: 'instant'})")
    found = browser.js(
        "(() => { const b = document.querySelectorAll('#figure-2 .series use')[3].getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2] })()"
    )
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=found[0] + 2, y=found[1] + 2)
    browser.wait(lambda: "minibatch kn, images: 512" in browser.js(f"{tip}.textContent"))
    browser("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
    browser.wait(lambda: browser.js(f"{tip}.hidden"))


def test_tables_sort_by_their_headers(browser, page):
    browser.open(page)
    table = "[...document.querySelectorAll('table.sortable')].at(-1)"
    column = f"[...{table}.tBodies[0].rows].map(row => row.cells[4].textContent)"
    browser.js(f"{table}.tHead.rows[0].cells[4].querySelector('button').focus()")
    for order, least in (("ascending", False), ("descending", True)):
        browser.key("Enter")
        assert browser.js(f"{table}.tHead.rows[0].cells[4].getAttribute('aria-sort')") == order
        values = browser.js(column)
        numbers = [float(value) for value in values if value]
        assert numbers == sorted(numbers, reverse=least)
        assert values[-3:] == ["", "", ""]


def test_without_scripts_all_is_there(browser, page):
    browser.open(page, script=False)
    assert browser.js("document.querySelectorAll('button, [role=slider]').length") == 0
    sizes = browser.js("[...document.querySelectorAll('.drawing')].map(d => d.getBoundingClientRect().height)")
    assert len(sizes) == 4
    assert min(sizes) > 150
    assert browser.js("document.querySelector('.legend').innerText").split("\n")[0].strip() == "linear, warmup"
    browser.js("document.querySelector('#figure-1 summary').focus()")
    browser.key("Enter")
    assert browser.js("document.querySelector('#figure-1 table').getBoundingClientRect().height") > 100
    assert noise(browser) == []


def test_print_opens_what_is_folded_on_light_paper_without_buttons(browser, page):
    browser.media(media="print", prefers_color_scheme="dark")
    browser.open(page, 794)
    assert browser.js("document.querySelector('#figure-1 table').getBoundingClientRect().height") > 50
    assert browser.js("document.querySelector('#run-96 dl').getBoundingClientRect().height") > 10
    assert browser.js("document.querySelector('nav').getBoundingClientRect().height") == 0
    assert browser.js("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    browser.media()
    assert browser.pdf().startswith(b"%PDF")


def test_text_of_files_is_shown_and_no_alert_fires(browser, page, tmp_path):
    findings = read_findings(page.parent)
    figure = findings.figures[0]
    series = tuple(one.model_copy(update={"name": ATTACK}) for one in figure.series)
    attacked = findings.model_copy(
        update={"title": ATTACK, "answer": ATTACK, "figures": (figure.model_copy(update={"series": series}),)}
    )
    file = tmp_path / "report.html"
    file.write_text(render(attacked, read_runs(page.parent)[0]), encoding="utf-8")
    browser.open(file)
    browser.js("document.querySelector('#figure-1 .slider').focus({focusVisible: true})")
    assert browser.js("document.querySelector('h1').textContent") == ATTACK
    assert browser.js("document.querySelector('.tip').textContent").startswith(ATTACK)
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert noise(browser) == []
    browser.js("document.body.append(Object.assign(document.createElement('script'), {text: 'alert(3)'}))")
    browser.wait(lambda: noise(browser))
    assert [event["method"] for event in noise(browser)] == ["Log.entryAdded"]  # refused by the page's own policy
    assert requests(browser) == [file.as_uri()]


def test_what_a_screen_reader_is_given(browser, page):
    browser.open(page)
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    roles = {role for role, _ in found}
    assert {"main", "navigation", "banner", "contentinfo", "heading", "figure", "slider", "table"} <= roles
    for role, name in found:
        if role in ("slider", "button", "link", "figure", "table", "image", "region", "DisclosureTriangle"):
            assert name.strip(), role
    assert ("slider", "Points of: Test error against minibatch size") in found
    assert ("button", "square root") in found
    title, desc = (browser.js(f"document.querySelector('#figure-1 {tag}').textContent") for tag in ("title", "desc"))
    assert "against" in desc
    assert ("image", f"{title} {desc}") in found
    (slider,) = (n for n in nodes if n.get("name", {}).get("value") == f"Points of: {title}")
    assert slider["description"]["value"] == desc
    browser.js("document.querySelector('#figure-1 .slider').focus({focusVisible: true})")
    ring = browser.js("getComputedStyle(document.querySelector('#figure-1 .slider:focus-visible')).outline")
    assert ring.endswith("solid 3px")
    boxes = browser.js(
        "['.slider', '.plot'].map(name => document.querySelector('#figure-1 ' + name).getBoundingClientRect().toJSON())"
    )
    assert boxes[0] == boxes[1]
