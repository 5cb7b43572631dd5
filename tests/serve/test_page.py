"""The page of `textray serve` in a real Chromium: what a reader sees and does, and what the browser complains of."""

import io
import json
import shutil
import warnings
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image as PILImage
from pydicom import dcmread

from .conftest import start, stop

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
expect = sync_api.expect
PATIENTS_RIGHT_LOWER = "left lower"  # on the standard film, by image side


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(make_film_bundle, grounding_bundle, tmp_path_factory):
    """A server whose network judges films and finds lungs."""
    folder = make_film_bundle(tmp_path_factory.mktemp("bundles") / "whole").folder
    running = start("--model", folder, "--ground-model", grounding_bundle)
    yield running
    assert stop(running) == 0


@pytest.fixture
def film(study_film, tmp_path):
    """A film of a study with two bright lungs, a brighter spot in the picture's left lower zone: ``film(name)``."""

    def write(name="chest.dcm", *, spot=(0.75, 0.28), **tags):
        rows, columns = np.mgrid[:200, :180] / np.array([200, 180]).reshape(2, 1, 1)
        lungs = [np.exp(-((((columns - x) / 0.16) ** 2 + ((rows - 0.5) / 0.34) ** 2) ** 3)) for x in (0.28, 0.72)]
        levels = 0.42 * sum(lungs)
        if spot is not None:
            levels = levels + 0.5 * np.exp(-((rows - spot[0]) ** 2 + (columns - spot[1]) ** 2) / 0.006)
        path = tmp_path / name
        window = {"WindowCenter": 2048, "WindowWidth": 4096}
        path.write_bytes(study_film(np.rint(np.clip(levels, 0, 1) * 4095).astype(np.uint16), **window | tags))
        return path

    return write


@pytest.fixture
def page(browser, server):
    """The page with the key; at the end the browser must not have complained, nor asked anybody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    tab = context.new_page()
    complaints, asked = [], []
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    tab.complaints = complaints
    tab.goto(f"{server.url}#key={server.key}")
    expect(tab.locator("#weights")).to_contain_text("TextRay")
    yield tab
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith((server.url, "blob:"))] == []


def opened(page, path):
    page.set_input_files("#file", path)
    settled(page)


def settled(page):
    """Wait until words that were typed are sent and answered."""
    page.wait_for_timeout(700)
    expect(page.locator("#busy")).to_be_hidden(timeout=60_000)
    expect(page.locator("#headline")).not_to_be_empty(timeout=60_000)


def mask_halves(page, tmp_path):
    """Pixels of the mask in the picture's left and right half, of the file that the page gives."""
    with page.expect_download() as waiting:
        page.click('[data-file="mask.png"]')
    waiting.value.save_as(tmp_path / "mask.png")
    with PILImage.open(tmp_path / "mask.png") as picture:
        mask = np.asarray(picture) > 0
    half = mask.shape[1] // 2
    return int(mask[:, :half].sum()), int(mask[:, half:].sum())


def canvas(page):
    """What is drawn, as an array."""
    return np.asarray(PILImage.open(io.BytesIO(page.locator("#view").screenshot())).convert("RGB"), np.int16)


def chip(page, zone):
    return page.locator(f'.chip[data-zone="{zone}"]')


def test_a_film_shows_its_mask_at_once_and_the_words_move_it(page, film, tmp_path):
    opened(page, film())
    expect(page.locator("#headline")).to_contain_text("of the picture is marked")
    left, right = mask_halves(page, tmp_path)
    assert left > right == 0
    page.fill(
        "#report", "opacity in the left lower zone, heart size normal"
    )  # the patient's left is the picture's right
    settled(page)
    assert chip(page, "right lower").get_attribute("data-state") == "present"
    expect(chip(page, "right lower")).to_have_accessible_name("L lower: Patient's left, lower zone: lesion")
    moved = mask_halves(page, tmp_path)
    assert moved[1] > right
    expect(page.locator("#understood")).to_contain_text("lower left lung")
    expect(page.locator("#understood .unused").first).to_be_visible()
    chip(page, "right lower").click()
    settled(page)
    assert chip(page, "right lower").get_attribute("data-state") == "absent"
    assert page.input_value("#report") == "No opacity in the left lower zone."
    assert mask_halves(page, tmp_path)[1] < moved[1]
    page.click("#back")
    settled(page)
    assert page.input_value("#report").startswith("opacity in the left lower zone")
    assert chip(page, "right lower").get_attribute("data-state") == "present"


def test_words_against_the_film_are_named_on_the_side_that_the_chips_name(page, film):
    opened(page, film())
    page.fill("#report", "No opacity in the right lower zone. Opacity in the left upper zone.")
    settled(page)
    warning = page.locator("#warnings .conflict")
    expect(warning).to_contain_text("patient's right lower zone")
    expect(warning).not_to_contain_text("viewer")
    expect(chip(page, PATIENTS_RIGHT_LOWER)).to_have_class("chip doubted")


def test_sides_that_the_film_does_not_tell_are_those_of_the_picture(page, film):
    opened(page, film(PatientOrientation=""))
    expect(chip(page, PATIENTS_RIGHT_LOWER)).to_have_accessible_name("lower: Picture's left, lower zone: not mentioned")
    chip(page, PATIENTS_RIGHT_LOWER).click()
    settled(page)
    assert (page.input_value("#report"), page.input_value("#laterality")) == (
        "Opacity in the left lower zone.",
        "viewer",
    )
    assert chip(page, PATIENTS_RIGHT_LOWER).get_attribute("data-state") == "present"


def test_a_phrase_is_drawn_and_goes_again(page, film):
    opened(page, film())
    before = canvas(page)
    page.fill("#phrase", "right")
    page.press("#phrase", "Enter")
    expect(page.locator("#map")).to_be_visible(timeout=60_000)
    expect(page.locator("#map-text")).to_contain_text("cross")
    assert np.abs(canvas(page) - before).max() > 60
    page.click("#map-off")
    assert np.abs(canvas(page) - before).mean() < 1


def test_the_film_alone_opacity_outline_and_zoom(page, film):
    opened(page, film())
    page.click("#zones")
    marked = canvas(page)
    page.click("#before")
    bare = canvas(page)
    assert (np.ptp(marked, axis=2) > 60).any()
    grey = np.ptp(bare, axis=2)
    assert grey.max() < 30
    page.click("#before")
    page.locator("#opacity").fill("0")
    page.click("#outline")
    assert np.abs(canvas(page) - bare).mean() < 0.5
    page.locator("#view").focus()
    page.keyboard.press("+")
    expect(page.locator("#zoom")).to_have_text("125 %")
    page.keyboard.press("0")
    page.locator("#view").hover()
    page.mouse.wheel(0, -100)
    expect(page.locator("#zoom")).to_have_text("115 %")
    page.click("#fit")
    expect(page.locator("#zoom")).to_have_text("100 %")


def test_downloads_open(page, film, tmp_path):
    opened(page, film())
    found = {}
    for name in ("mask.png", "overlay.png", "record.json", "seg.dcm", "sr.dcm", "sc.dcm"):
        with page.expect_download(timeout=60_000) as waiting:
            page.click(f'[data-file="{name}"]')
        assert waiting.value.suggested_filename == f"chest.{name}"
        waiting.value.save_as(tmp_path / "files" / name)
        found[name] = tmp_path / "files" / name
    with PILImage.open(found["overlay.png"]) as picture:
        assert picture.width == 180
    assert json.loads(found["record.json"].read_bytes())["model"]["name"] == "whole"
    assert [dcmread(found[f"{kind}.dcm"]).Modality for kind in ("seg", "sr")] == ["SEG", "SR"]


def test_a_picture_has_no_objects_and_an_empty_mask_no_seg(page, film, tmp_path):
    opened(page, film("bare.dcm", spot=None))
    expect(page.locator("#headline")).to_have_text("Nothing is marked")
    expect(page.locator('[data-file="seg.dcm"]')).to_be_disabled()
    expect(page.locator('[data-file="sr.dcm"]')).to_be_enabled()
    expect(page.locator("#files-note")).to_contain_text("no SEG")
    buffer = io.BytesIO()
    PILImage.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    opened(page, tmp_path / "a.png")
    expect(page.locator('[data-file="sr.dcm"]')).to_be_disabled()


def test_the_keyboard_is_enough(page, film):
    opened(page, film())
    page.locator("#report").focus()
    page.keyboard.type("right upper zone")
    settled(page)
    chip(page, "left upper").focus()
    page.keyboard.press("Enter")
    settled(page)
    assert chip(page, "left upper").get_attribute("data-state") == "absent"
    reached = set()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(({id, dataset}) => id || dataset.zone || dataset.file)(document.activeElement)"))
    wanted = {
        "file",
        "view",
        "before",
        "outline",
        "zones",
        "opacity",
        "in",
        "out",
        "fit",
        "report",
        "laterality",
        "free",
    }
    wanted |= {"clear", "back", "phrase", "seg.dcm", "record.json", "left upper", "right lower", "remove"}
    assert wanted <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_barrier_and_nothing_sticks_out(page, film, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    script = axe.AXE_FILE_PATH.read_text(encoding="utf-8")
    page.evaluate(script)
    violations = page.evaluate("() => axe.run().then((found) => found.violations)")
    opened(page, film())
    page.fill("#report", "opacity in the left upper zone, no opacity in the right lower zone, heart normal")
    settled(page)
    page.fill("#phrase", "right")
    page.press("#phrase", "Enter")
    expect(page.locator("#map")).to_be_visible(timeout=60_000)
    violations += page.evaluate("() => axe.run().then((found) => found.violations)")
    assert [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator(".research")).to_be_in_viewport()
    page.mouse.wheel(0, 3000)
    expect(page.locator(".research")).to_be_in_viewport()


def test_f10_markup_in_words_and_names_is_text(page, film):
    opened(page, film("<img src=x onerror=alert(1)>.dcm"))
    page.fill("#report", "<img src=x onerror=alert(1)> right lower zone <script>alert(2)</script>")
    settled(page)
    assert page.locator("img").count() == 1, "the icon"
    expect(page.locator("#film-name")).to_have_text("<img src=x onerror=alert(1)>.dcm")


def test_the_key_leaves_the_address_and_is_asked_for_without_one(page, browser, server):
    assert page.url == f"{server.url}"
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(page.locator("#key-form")).to_be_visible()
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    expect(page.locator("#error")).to_contain_text("token is missing or wrong")
    page.complaints.clear()  # the browser notes the 401
    page.fill("#key", server.key)
    page.press("#key", "Enter")
    expect(page.locator("#weights")).to_contain_text("whole")
    expect(page.locator("#key-form")).to_be_hidden()


def test_a_file_that_is_no_film_says_so_and_the_next_one_works(page, film, tmp_path):
    (tmp_path / "a.txt").write_text("words")
    page.set_input_files("#file", tmp_path / "a.txt")
    expect(page.locator("#error")).to_contain_text("E_FORMAT")
    page.complaints.clear()  # the browser notes the 415
    opened(page, film())
    expect(page.locator("#error")).to_be_hidden()
    page.click("#remove")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#status")).to_have_text("The film is removed from the server.")


def test_only_the_last_words_count(page, film):
    """The answer to the first words comes late, and is dropped."""
    opened(page, film())
    first = []

    def delay(route):
        if not first:
            first.append(route)
            return
        route.continue_()

    page.route("**/segment", delay)
    page.fill("#report", "left upper zone")
    page.wait_for_timeout(700)
    page.fill("#report", "right lower zone")
    settled(page)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(sync_api.Error):  # the page has given it up
            first[0].continue_()
    page.wait_for_timeout(500)
    assert chip(page, PATIENTS_RIGHT_LOWER).get_attribute("data-state") == "present"
    assert chip(page, "right upper").get_attribute("data-state") == "unmentioned"
