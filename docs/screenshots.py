"""Takes the pictures in `docs/images` from a real Airflow page: `python docs/screenshots.py`.

Starts the try-out in a folder of its own, delivers the sample batches, and looks at the page with a headless browser.
Needs Playwright for Python (`pip install playwright`) and a Chromium, by default the one of the system.
"""
# ruff: noqa: INP001 a script, not a package

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from leadferry.batch.load import load_all
from leadferry.local.runner import TryOut
from leadferry.local.settings import USER
from leadferry.local.workspace import PROJECT, Workspace

IMAGES = Path(__file__).parent / "images"
DAG = "batch_us_contacts_sftp"


def dag_list(page: Page) -> None:
    """All batches with their schedules."""
    page.get_by_text("Harbor Home, western contacts").wait_for()


def graph(page: Page) -> None:
    """The tasks of a batch, with the destinations in sight."""
    page.get_by_role("button", name="Show Graph").click()
    page.get_by_role("button", name="Expand all task groups").click()
    page.get_by_text("summit_sftp").first.wait_for()
    page.get_by_role("button", name="fit view").click()


def trigger_form(page: Page) -> None:
    """What a person may ask for when delivering now."""
    page.set_viewport_size({"width": 1280, "height": 1500})
    page.get_by_role("button", name="Trigger").click()
    page.get_by_text("Deliver two made-up leads").wait_for()


def redeliver_form(page: Page) -> None:
    """The same of redeliveries, filled in as an operator would."""
    page.set_viewport_size({"width": 1280, "height": 1640})
    page.get_by_role("button", name="Trigger").click()
    page.locator("#element_destination").wait_for()
    batch = page.get_by_role("combobox").first
    batch.press_sequentially(DAG.removeprefix("batch_"))
    batch.press("Enter")
    for name, text in REDELIVERY.items():
        page.locator(f"#element_{name}").fill(text)


REDELIVERY = {
    "destination": "summit_sftp",
    "lead_ids": "17\n18\n23",
    "reason": "The buyer lost the file of Friday",
}
"""What the picture's operator writes."""


def page_of_the_batch(page: Page) -> None:
    """The docs panel, made as large as Airflow lets a reader make it."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.get_by_role("button", name="Dag Docs").click()
    panel = page.get_by_role("dialog")
    panel.get_by_role("heading", name="Recipient").wait_for()
    corner = panel.bounding_box()
    if corner:
        x, y = corner["x"] + corner["width"] - 6, corner["y"] + corner["height"] - 6
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 330, y + 480)
        page.mouse.up()


VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "dag-list": ("/dags", dag_list),
    "graph": (f"/dags/{DAG}", graph),
    "trigger-form": (f"/dags/{DAG}", trigger_form),
    "redeliver-form": ("/dags/redeliver_leads", redeliver_form),
    "batch-page": (f"/dags/{DAG}", page_of_the_batch),
}
"""For each picture the address to open and what to do there."""


def take_pictures(page: Page, url: str, *, password: str) -> None:
    """Log in and take every picture."""
    page.goto(f"{url}/auth/login")
    page.locator("input").nth(0).fill(USER)
    page.locator("input").nth(1).fill(password)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Dags").or_(page.get_by_role("link", name="Dags")).first.wait_for()
    for name, (path, prepare) in VIEWS.items():
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(url + path)
        page.wait_for_load_state("networkidle")
        prepare(page)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1000)  # animations
        page.screenshot(path=IMAGES / f"{name}.png")


@contextmanager
def browser_page(chromium: str) -> Iterator[Page]:
    """Open an empty page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page(color_scheme="light")
            page.set_default_timeout(15_000)
            yield page
        finally:
            browser.close()


def main() -> None:
    """Start, deliver, look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    chosen = parser.parse_args()
    if chosen.chromium is None:
        parser.error("no Chromium found; install one (apt-get install chromium) or name it with --chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leadferry-") as folder:
        workspace = Workspace(Path(folder))
        workspace.make()
        batches, _ = load_all(PROJECT / "config")
        with TryOut(workspace, port=None) as try_out, browser_page(chosen.chromium) as page:
            try_out.start(batches)
            try_out.deliver(batches)
            take_pictures(page, try_out.url, password=workspace.secrets().admin_password)


if __name__ == "__main__":
    main()
