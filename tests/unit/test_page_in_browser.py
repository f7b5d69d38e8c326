"""The report page in a real browser: it renders, its tooltips show, nothing is fetched."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_sweep import finished, planned

from actshift.report import frame
from actshift.report.html import evidence_text
from actshift.report.page import Table, page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")]

COUNTS = {
    ("llama3.2-1b", "sft", "boolq"): [880],
    ("llama3.2-1b", "lora_r8", "boolq"): [700, 710, 705, 702, 699],
    ("llama3.2-1b", "post_block", "boolq"): [861, 862, 863, 864, 865],
}
LOOK = """<script>addEventListener("load", () => {
  const shown = (cell) => { cell.focus(); return getComputedStyle(cell, "::after").content; };
  const before = getComputedStyle(document.querySelector("[data-evidence]"), "::after").content;
  const box = (element) => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
  const seen = {
    before, tooltips: [...document.querySelectorAll("[data-evidence]")].map(shown),
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
    figures: [...document.querySelectorAll("figure svg")].map(box), table: box(document.querySelector("table")),
  };
  const found = document.createElement("pre");
  found.id = "seen"; found.textContent = JSON.stringify(seen); document.body.append(found);
});</script>"""
"""Put into a copy of the page: what the browser has made of it."""


def chromium(*arguments: str) -> str:
    # No sandbox: containers, and users who are root, have none to offer.
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_the_page_renders_shows_its_evidence_and_fetches_nothing(tmp_path: Path) -> None:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    records = finished(manifest, COUNTS)
    text = page([Table(manifest, selection)], records)
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    dom = chromium(profile, "--dump-dom", f"file://{tmp_path / 'page.html'}")
    match = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert match is not None, "the page has loaded"
    seen = json.loads(html.unescape(match[1]))
    assert seen["fetched"] == [], "nothing is fetched"
    assert seen["before"] == "none", "a tooltip waits to be asked"
    # A string of CSS: line feeds stand as \\a and a space.
    texts = [re.sub(r"\\a ?", "\n", shown.strip('"')) for shown in seen["tooltips"]]
    for row in frame.cells(manifest, records, selection).itertuples():
        lines = [line for line in evidence_text(row).splitlines() if '"' not in line]
        assert any(all(line in text for line in lines) for text in texts), f"{row.method}, {row.dataset}"
    assert seen["figures"] and all(width > 100 and height > 100 for width, height in seen["figures"])
    assert all(side > 100 for side in seen["table"])

    picture = tmp_path / "page.png"
    chromium(profile, f"--screenshot={picture}", "--window-size=1200,1600", f"file://{tmp_path / 'page.html'}")
    assert picture.stat().st_size > 20_000, "more is drawn than an empty page"
