"use strict";
// What the page shows without this script, this script only makes easier to ask: it adds buttons, a cursor, sorting.

function element(tag, attributes, parent) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  return made;
}

function openRun(id) {
  const body = id && document.getElementById(id);
  if (!body) return;
  const details = body.closest("details");
  details.open = true;
  if (location.hash !== "#" + id) location.hash = id;
  details.querySelector("summary").focus();
}

// Legend entries become buttons that hide and show their series.
function makeLegend(figure, hidden, changed) {
  figure.querySelectorAll(".legend .entry").forEach((entry, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "entry";
    button.setAttribute("aria-pressed", "true");
    button.append(...entry.childNodes);
    entry.replaceWith(button);
    button.addEventListener("click", () => {
      const hide = !hidden.has(index);
      if (hide) hidden.add(index); else hidden.delete(index);
      button.setAttribute("aria-pressed", String(!hide));
      figure.querySelector(`[data-series="${index}"]`).classList.toggle("hidden", hide);
      changed();
    });
  });
}

// Over the plot lies one stop of the keyboard: arrows move a cursor along a series and between series. It stands beside
// the drawing, not around it: what is inside a slider is not there for a screen reader.
function makeCursor(figure) {
  const data = JSON.parse(figure.querySelector(".points").textContent);
  const plot = figure.querySelector(".plot"), drawing = figure.querySelector(".drawing");
  const hidden = new Set();
  let series = 0, place = -1;
  const ring = document.createElementNS(drawing.namespaceURI, "circle");
  ring.setAttribute("class", "cursor");
  ring.setAttribute("r", "9");
  const slider = element("div", {
    class: "slider", tabindex: 0, role: "slider", "aria-valuemin": 1, "aria-valuenow": 1,
    "aria-valuetext": "arrow keys move along the points",
    "aria-label": "Points of: " + figure.querySelector("h3").textContent,
    "aria-describedby": drawing.querySelector("desc").id,
  }, plot);
  const tip = element("div", { class: "tip", "aria-hidden": "true", hidden: "" }, plot);

  const visible = () => data.series.map((_, i) => i).filter((i) => !hidden.has(i) && data.series[i].points.length);
  const point = () => data.series[series].points[place];

  function hide() {
    ring.remove();
    tip.hidden = true;
  }

  function show() {
    const [across, down, x, y, spread, run] = point();
    ring.setAttribute("cx", across);
    ring.setAttribute("cy", down);
    drawing.append(ring);
    const lines = [data.series[series].name, `${data.x}: ${x}`, `${data.y}: ${y}` + (spread ? ` (${spread})` : "")];
    if (run) lines.push("Enter or click: its run");
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    const box = drawing.viewBox.baseVal, scale = plot.clientWidth / box.width;
    const left = Math.max(0, Math.min(across * scale - tip.offsetWidth / 2, plot.clientWidth - tip.offsetWidth));
    const above = down * scale - tip.offsetHeight - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < -8 ? down * scale + 14 : above}px`;
    slider.setAttribute("aria-valuetext", lines.join(", "));
    slider.setAttribute("aria-valuenow", String(place + 1));
    slider.setAttribute("aria-valuemax", String(data.series[series].points.length));
  }

  function nearest(candidates, across, down) {
    let best = null;
    for (const s of candidates) {
      data.series[s].points.forEach(([px, py], p) => {
        const far = (px - across) ** 2 + (down === null ? 0 : (py - down) ** 2);
        if (best === null || far < best.far) best = { s, p, far };
      });
    }
    return best;
  }

  function go(to) {
    if (!to) return hide();
    [series, place] = [to.s, to.p];
    show();
  }

  function start() {
    const there = visible();
    if (!there.length) return null;
    return place >= 0 && there.includes(series) ? { s: series, p: place } : { s: there[0], p: 0 };
  }

  function moved(key) {
    const there = visible(), last = data.series[series].points.length - 1;
    const along = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last }[key];
    if (along !== undefined) return { s: series, p: Math.max(0, Math.min(last, along)) };
    const turn = there.indexOf(series) + (key === "ArrowDown" ? 1 : -1);
    return nearest([there[(turn + there.length) % there.length]], point()[0], null);
  }

  slider.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    else if (event.key === "Enter" && place >= 0) openRun(point()[5]);
    else if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const at = start();
      go(at && at.s === series && at.p === place ? moved(event.key) : at);
    } else return;
    event.preventDefault();
  });
  slider.addEventListener("focus", () => { if (slider.matches(":focus-visible")) go(start()); });
  slider.addEventListener("blur", hide);
  const under = (event) => {
    const box = drawing.getBoundingClientRect(), scale = box.width / drawing.viewBox.baseVal.width;
    return nearest(visible(), (event.clientX - box.left) / scale, (event.clientY - box.top) / scale);
  };
  plot.addEventListener("pointermove", (event) => {
    const found = under(event);
    if (found && found.far < 40 ** 2) go(found); else hide();
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("click", (event) => {
    const found = under(event);
    if (found && found.far < 18 ** 2) openRun(data.series[found.s].points[found.p][5]);
  });
  makeLegend(figure, hidden, hide);
}

// Headers of tables become buttons that sort.
function makeSortable(table) {
  const body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
  const value = (row, index) => row.cells[index].textContent.replaceAll(",", "").trim();
  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].sort((a, b) => {
        const [left, right] = [value(a, index), value(b, index)];
        if (!left || !right) return !left - !right; // empty cells stay last
        const order = isNaN(left) || isNaN(right) ? left.localeCompare(right) : left - right;
        return down ? -order : order;
      });
      body.append(...sorted);
    });
  });
}

document.querySelectorAll("figure").forEach(makeCursor);
document.querySelectorAll("table.sortable").forEach(makeSortable);
window.addEventListener("hashchange", () => openRun(location.hash.slice(1).startsWith("run-") && location.hash.slice(1)));
