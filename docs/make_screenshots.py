"""Make the pictures of the page of `textray serve`, with the film of pydicom-data and the weights inside the package.

Run: python docs/make_screenshots.py [--out FOLDER]

Needs the extra serve, playwright and a Chromium of the system. `page.jpg` is for the README; the others are for
docs/how-to/serve.md: the first look, words against the film, and a phrase on a phone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from textray.inference.inputs import demo_film

CODE = "import sys; from textray.cli import main; main(sys.argv[1:])"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
WORDS = "Patchy opacity in the right lower zone and the left lower zone. Heart size is normal."
AGAINST = "Opacity in the left upper zone. No opacity in the right lower zone."
PHRASE = "opacity in the left lower lung"
PATIENCE = 120_000  # milliseconds


@contextmanager
def serving() -> Iterator[str]:
    """Run the server; gives the address of its page, with the key."""
    words = [sys.executable, "-c", CODE, "serve", "--port", "0", "--workers", "1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[1]
        finally:
            process.terminate()


def settled(page: Page) -> None:
    """Wait until the page has its answer."""
    page.wait_for_timeout(800)  # the page waits for further keys before it sends words
    page.locator("#headline:not(:empty)").wait_for(timeout=PATIENCE)
    page.locator("#busy").wait_for(state="hidden", timeout=PATIENCE)


def shoot(page: Page, film: Path, out: Path) -> None:
    """Take the four pictures."""

    def take(name: str) -> None:
        page.locator("h1").hover()
        page.evaluate("() => document.activeElement.blur()")
        page.wait_for_timeout(300)
        page.screenshot(path=out / name, type="jpeg", quality=82)

    page.set_input_files("#file", film)
    settled(page)
    take("serve-film.jpg")
    page.emulate_media(color_scheme="dark")
    page.fill("#report", WORDS)
    settled(page)
    take("page.jpg")
    page.fill("#report", AGAINST)
    settled(page)
    take("serve-words.jpg")
    page.click("#clear")
    settled(page)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    page.fill("#phrase", PHRASE)
    page.press("#phrase", "Enter")
    page.locator("#map").wait_for(timeout=PATIENCE)
    settled(page)
    page.evaluate("() => scrollTo(0, 0)")
    take("serve-phrase.jpg")


def main() -> None:
    """Parse the arguments and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    film, chromium = demo_film(), shutil.which("chromium")
    if film is None or chromium is None:
        sys.exit("needs pydicom-data (pip install 'textray[demo]') and chromium on the path")
    with serving() as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=DESK, color_scheme="light")
        page.goto(address)
        shoot(page, Path(film), out)
        browser.close()


if __name__ == "__main__":
    main()
