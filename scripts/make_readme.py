"""Write README.md's figures and its picture from real runs of the demo: ``make readme``, some three and a half minutes.

The first run is measured undisturbed; in the second a real Chromium shows the page, and a worker is killed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from demo.supervisor import PARTITIONS
from streams.local_broker.jars import read_lock

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "page.png"
MARKERS = re.compile(r"(<!-- figures[^>]*-->\n).*?(<!-- /figures -->)", re.DOTALL)
MEASURED_SECONDS = 60
SETTLING_SECONDS = 15
LARGEST_PICTURE = 700_000
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TRIES = 5
WORTH_SHOWING = 40
"""A picture wants a headline that interests somebody: the next is published where one reached fewer users."""
Report = dict[str, Any]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        measured, shown = Path(scratch, "measured.json"), Path(scratch, "shown.json")
        with _demo(measured, "--seconds", str(MEASURED_SECONDS + SETTLING_SECONDS)):
            pass
        with _demo(shown) as (demo, address):
            picture = _take_picture(address)
            demo.send_signal(signal.SIGTERM)
        figures = table(json.loads(measured.read_bytes()), json.loads(shown.read_bytes()))
    PICTURE.write_bytes(picture)
    README.write_text(with_figures(README.read_text(), figures))
    print(f"{PICTURE.name}: {len(picture):,} bytes\n{figures}")


def with_figures(text: str, figures: str) -> str:
    """Return ``text`` with what stands between the markers replaced."""
    new, count = MARKERS.subn(lambda found: f"{found[1]}{figures}{found[2]}", text)
    if count != 1:
        sys.exit("README.md needs the markers <!-- figures --> and <!-- /figures --> once each")
    return new


def table(measured: Report, shown: Report) -> str:
    """The figures as Markdown: all from the undisturbed run, but for the recovery from the kill."""
    for report in (measured, shown):
        if report["lost"]:
            sys.exit(f"{report['lost']} events were lost: that is no figure for a README")
    events, lists = (measured[name] / measured["seconds"] for name in ("events_sent", "lists_published"))
    rows = [
        ("a click, to the list it changed", _latency(measured["event_to_list_ms"])),
        ("a publication, to the lists it enters", _latency(measured["publish_to_list_ms"])),
        ("meanwhile", f"{events:,.0f} events/s folded, {lists:,.0f} lists/s published"),
        ("events lost", f"**{measured['lost']}** of {measured['events_sent'] + shown['events_sent']:,}"),
        (
            "`kill -9` of the worker that holds all users' states",
            f"caught up after **{max(shown['recovery_s']):.1f} s**, nothing lost",
        ),
        ("clicks per item shown", _arms(measured["ctr"])),
        ("items among the first ten that their reader truly likes", _arms(measured["precision"])),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", f"{_machine()}\n"])


def _latency(figures: Report) -> str:
    return f"**{figures['p50']:,.0f} ms** at the median, p99 {figures['p99']:,.0f} ms ({figures['count']:,} lists)"


def _arms(figures: Report) -> str:
    return f"**{figures['personal']:.1%}** in the readers' own lists, {figures['popular']:.1%} in the popular list"


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = f" ({model[1].strip()})" if model else ""
    return textwrap.fill(
        f"Written by `make readme` from runs of the demo on {cores} cores{processor}, which the broker (Apache Kafka "
        f"{read_lock().kafka}), the workers (Python {platform.python_version()}) and 2,000 simulated readers with 500 "
        f"clicks/s and 1,000 fresh articles shared, in {PARTITIONS} partitions. Times are from Kafka's own timestamp "
        "of the event or article to the receipt of the list.",
        width=120,
    )


@contextmanager
def _demo(report: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running demo and its page's address; at the end it is waited for, and must have gone well."""
    command = [sys.executable, "-m", "stoppress", "demo", "--report", str(report), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        address = ""
        try:
            for line in demo.stdout:
                print(line, end="", flush=True)
                if found := re.search(r"the page is at (\S+)", line):
                    address = found[1]
                    break
            if address:
                yield demo, address
        except BaseException:
            demo.terminate()
            raise
        for line in demo.stdout:
            print(line, end="", flush=True)
    if demo.returncode or not address:
        sys.exit(f"the demo ended with exit code {demo.returncode}")


def _take_picture(address: str) -> bytes:
    """Use the page as a visitor would and return it as a PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        # Without motion: on a machine without a graphics card that would take half a core from what is shown.
        page = browser.new_page(
            viewport={"width": 1440, "height": 900},
            device_scale_factor=1.5,
            color_scheme="light",
            reduced_motion="reduce",
        )
        page.set_default_timeout(90_000)
        page.goto(address)
        _visit(page)
        return page.screenshot(animations="disabled")


def _visit(page: Page) -> None:
    page.wait_for_selector(".feed:nth-child(4) .item")
    page.wait_for_timeout(10_000)
    page.click(".feed.you .item:nth-child(2) .card")
    page.wait_for_selector(".feed.you.answered")
    page.click("#kill")
    page.wait_for_selector(".account[data-phase=accounted]")
    page.wait_for_timeout(35_000)  # until the latencies shown are those of a healthy half minute
    for _ in range(TRIES):
        page.click("#suggestions button")
        page.wait_for_timeout(5_000)
        if int(page.inner_text("#reached").replace(",", "")) >= WORTH_SHOWING:
            break
    page.hover(".feed:nth-child(2) .item:nth-child(3) .card")
    page.wait_for_selector("#why:visible")
    page.wait_for_timeout(400)


if __name__ == "__main__":
    main()
