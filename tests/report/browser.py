"""A headless Chromium, Debian's: what a page's console says, and how wide the page is in a window of a given width."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")

_LOOK = """<script>
addEventListener("load", () => setTimeout(() => {
  const page = document.querySelector("iframe").contentDocument;
  const width = page.documentElement.clientWidth;
  const scrolls = node => node && (getComputedStyle(node).overflowX !== "visible" || scrolls(node.parentElement));
  const wide = [...page.body.querySelectorAll("*")].filter(node =>
    node.getBoundingClientRect().right > width + 1 && !scrolls(node.parentElement) && !node.closest("svg"));
  document.title = JSON.stringify({
    width: page.documentElement.scrollWidth,
    wide: wide.slice(0, 5).map(node => node.tagName + " " + node.textContent.slice(0, 60)),
    images: [...page.querySelectorAll("svg, img")].filter(image => {
      const said = ["aria-label", "aria-labelledby", "alt"].some(name => image.getAttribute(name));
      const spared = image.closest("[aria-hidden=true], [role=img]") || image.querySelector(":scope > title");
      return !said && !spared;
    }).length,
  });
}, 200));
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: console errors, the width it takes, what sticks out, images without words."""

    errors: list[str]
    width: int
    wide: list[str]
    unnamed_images: int


def look(page: Path, width: int) -> Seen:
    """Open a page in a frame of this width (a window itself is never narrower than 500 pixels)."""
    with tempfile.TemporaryDirectory() as folder:
        frame = f'<iframe src="{html.escape(page.resolve().as_uri())}" style="border:0;width:{width}px;height:900px">'
        wrapper = Path(folder) / "frame.html"
        wrapper.write_text(f"<!DOCTYPE html><body style='margin:0'>{frame}</iframe>{_LOOK}</body>")
        answer = _run(wrapper, "--dump-dom", "--window-size=1400,1000")
    title = re.search(r"<title>(.*?)</title>", answer.stdout, re.S)
    assert title is not None, answer.stderr[-2000:]
    told = json.loads(html.unescape(title[1]))
    errors = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
    return Seen(errors, told["width"], told["wide"], told["images"])


def photograph(page: Path, picture: Path, width: int = 1200, height: int = 2400, *, dark: bool = False) -> Path:
    """Draw the top of a page as a PNG."""
    more = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    _run(page, f"--screenshot={picture}", f"--window-size={width},{height}", *more)
    return picture


def _run(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--disable-web-security", "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=4000"]
    with tempfile.TemporaryDirectory() as profile:
        command += [f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
