"""The picture of a report page in the README, by Chromium: python tools/report_picture.py REPORT.html PICTURE.png

The page's upper part, 650 px wide at scale 2, in 64 colours.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.browser import Browser

WIDTH, HEIGHT, SCALE, COLOURS = 650, 1212, 2, 64  # down to the axis of the first figure
_NO_SCROLLBAR = 12_000


def picture(page: Path) -> Image.Image:
    """What a window of WIDTH shows of a page, down to HEIGHT."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        browser.open(page, WIDTH, _NO_SCROLLBAR)
        browser("Emulation.setDeviceMetricsOverride", width=WIDTH, height=_NO_SCROLLBAR, deviceScaleFactor=SCALE,
                mobile=False)  # fmt: skip
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        shot = browser("Page.captureScreenshot", format="png", clip=clip)
        browser.close()
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    return image.quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    picture(Path(sys.argv[1]).resolve()).save(sys.argv[2], optimize=True)
