"""The report in a real browser, where there is one: no request, no console error, no overflow."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from study import paths

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (1280, 390)
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
# Written into a copy of the page: a browser without a window says what it measured.
_MEASURE = """<script>addEventListener('load', () => {
  const [table, figure] = ['table', 'img'].map(
    name => document.querySelector('.first ' + name).getBoundingClientRect());
  const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
  const page = document.documentElement;
  document.title = JSON.stringify({width: page.clientWidth, needed: page.scrollWidth,
    fetched: performance.getEntriesByType('resource').map(r => r.name)
      .filter(name => !name.startsWith('data:')),
    images: document.images.length, broken, top: table.top, bottom: figure.bottom,
    height: innerHeight});
});</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_in_a_browser(written: Path, width: int, tmp_path: Path):
    found = measured(written / "report.html", width, tmp_path)
    assert found["width"] == pytest.approx(width, abs=20)
    assert found["needed"] <= found["width"]
    assert found["images"] > 10
    assert found["broken"] == 0
    assert found["fetched"] == []
    if width == 1280:
        assert found["top"] < found["height"] / 3
        assert found["bottom"] < found["height"]


@pytest.mark.parametrize("profile", ["autoencoders", "lab"])
def test_a_committed_report_shows_its_figure_on_the_first_screen(profile: str, tmp_path: Path):
    found = measured(paths.report(profile) / "report.html", 1280, tmp_path)
    assert found["needed"] <= found["width"]
    assert found["bottom"] < found["height"]


def measured(report: Path, width: int, folder: Path) -> dict[str, Any]:
    """What a browser says of a report that is alone in its folder, in a window 900 high."""
    page = folder / "alone.html"
    page.write_text(report.read_text().replace("</body>", _MEASURE))
    # A window is never narrower than 500: the page is put into a frame of the width.
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><title></title><iframe src="{page.as_uri()}" width="{width}" height="900" '
        'style="border:0" onload="setTimeout(() => document.title = '
        'this.contentDocument.title, 500)"></iframe>'
    )
    done = subprocess.run(
        [
            *(str(CHROMIUM), *_QUIET, "--allow-file-access-from-files"),
            *(f"--user-data-dir={folder}", f"--window-size={width},900"),
            *("--dump-dom", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title
    return json.loads(title[1])
