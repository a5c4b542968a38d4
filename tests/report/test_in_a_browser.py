from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import synthetic_run

from softedge.report import report
from softedge.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

# The page runs in a frame of the device's width; the script looks from outside, since the page itself has none.
WRAPPER = """<body style="margin:0"><iframe style="border:0;width:{width}px;height:12000px" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const covered = [];
  for (const chart of page.querySelectorAll("svg.chart")) {{
    const texts = [...chart.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    for (const [i, [a, p]] of texts.entries()) for (const [b, q] of texts.slice(i + 1)) {{
      const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (across > 1 && down > 3) covered.push([chart.querySelector("title").textContent, a, b]);
    }}
  }}
  const small = [...page.querySelectorAll("svg.chart text")].map(t => t.getBoundingClientRect().height).filter(h => h);
  const ink = getComputedStyle(page.body).color;
  const scrolling = [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.getAttribute("aria-label"));
  const broken = [...page.querySelectorAll(".option")].filter(e => e.getClientRects().length > 1)
    .map(e => e.textContent);
  const found = {{broken, width: root.scrollWidth, covered, smallest: Math.min(...small), ink, scrolling}};
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
}};
</script>"""


def look(run: Run, width: int, folder: Path, dark: bool = False) -> dict[str, Any]:
    """What Chromium makes of the page at a width in CSS pixels."""
    page = (run.root / "report.html").read_text()
    (folder / "look.html").write_text(WRAPPER.format(width=width, page=html.escape(page, quote=True)))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", (folder / "look.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.S)
    assert found, done.stderr[-400:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two runs side by side, with every optional stage."""
    folder = tmp_path_factory.mktemp("runs")
    one = synthetic_run.make(folder / "one", devices=("local", "ssh_pi_board"), extras=True)
    report([one, synthetic_run.make(folder / "another", seed=1)])
    return one


@pytest.mark.parametrize("width", [360, 390, 820, 1280])
def test_nothing_sticks_out_of_the_page_and_no_name_covers_another(rich: Run, tmp_path: Path, width: int) -> None:
    found = look(rich, width, tmp_path)
    assert found["width"] <= width
    assert found["covered"] == []
    assert found["broken"] == []
    assert found["smallest"] > 10.5  # pixels from top to bottom of a line of text: readable without zooming


@pytest.mark.parametrize("width", [390, 1100])
def test_tables_of_files_and_latencies_on_four_devices_fit_without_scrolling(tmp_path: Path, width: int) -> None:
    devices = ("local", "ssh_pi_board", "adb_R58M123ABC", "browser_name_tablet")
    run = synthetic_run.make(tmp_path / "run", devices=devices)
    report([run])
    page = run.root / "report.html"
    page.write_text(page.read_text().replace("<details>", "<details open>"))
    # Matrices and tables of layers scroll on a phone, and say so to those who only hear them.
    silent = [name for name in look(run, width, tmp_path)["scrolling"] if "scrolls sideways" not in name]
    assert silent == []


def test_a_long_device_name_breaks_instead_of_widening_a_phones_page(tmp_path: Path) -> None:
    name = "ssh_operator_a-board-with-a-long-name.in-the-lab.example_2222_threads_4_name_second_python"
    run = synthetic_run.make(tmp_path / "run", devices=(name,))
    report([run])
    assert look(run, 390, tmp_path)["width"] <= 390


def test_the_page_follows_the_readers_dark_mode(full: Run, tmp_path: Path) -> None:
    assert look(full, 390, tmp_path)["ink"] == "rgb(29, 32, 36)"
    (tmp_path / "dark").mkdir()
    assert look(full, 390, tmp_path / "dark", dark=True)["ink"] == "rgb(232, 230, 225)"
