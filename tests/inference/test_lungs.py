"""Lungs that a network finds: zones that follow them, their affected shares, and pictures without lungs."""

import json
from itertools import product

import numpy as np
import pytest

import textray
from textray.errors import InputError
from textray.inference.film import SMALL, Film, Lungs, find_lungs, small_grid
from textray.inference.record import zone_parts
from textray.preprocess import Preprocess
from textray.records import ZONE_ROWS, Grid, ZoneSplit


def planes(*boxes, size=(200, 100)):
    """Two planes with a rectangle each, ``(top, end, left, right)`` in pixels; ``None`` is an empty one."""
    drawn = np.zeros((2, *size), bool)
    for plane, box in zip(drawn, boxes, strict=True):
        if box is not None:
            plane[box[0] : box[1], box[2] : box[3]] = True
    return Lungs(planes=drawn)


BOTH = planes((20, 170, 10, 40), (40, 160, 60, 90))


def test_zones_are_thirds_of_each_lung_and_meet_between_both():
    split = BOTH.split(ZONE_ROWS)
    assert split.column == pytest.approx(0.5, abs=0.011)
    np.testing.assert_allclose(split.rows[0], [70 / 200, 120 / 200], atol=0.011)
    np.testing.assert_allclose(split.rows[1], [80 / 200, 120 / 200], atol=0.011)
    moved = planes((20, 170, 10, 30), (20, 170, 40, 60)).split(ZONE_ROWS)
    assert moved.column == pytest.approx(0.35, abs=0.011)


def test_a_far_pixel_moves_no_zone():
    speck = planes((20, 170, 10, 40), (40, 160, 60, 90))
    speck.planes[0, 199, 45] = speck.planes[1, 0, 99] = True
    np.testing.assert_allclose(speck.split(ZONE_ROWS).rows, BOTH.split(ZONE_ROWS).rows, atol=0.011)
    assert speck.split(ZONE_ROWS).column == BOTH.split(ZONE_ROWS).column


@pytest.mark.parametrize("side", [0, 1])
def test_one_lung_gives_both_sides_its_heights(side):
    box = (30, 180, 10, 40)
    one = planes(*((box, None), (None, box))[side])
    split = one.split(ZONE_ROWS)
    assert one.found == ((True, False), (False, True))[side]
    assert split.column == 0.5
    assert split.rows[0] == split.rows[1]
    np.testing.assert_allclose(split.rows[0], [80 / 200, 130 / 200], atol=0.011)


def test_without_lungs_zones_are_those_of_the_weights():
    assert planes(None, None).split((0.4, 0.6)) == ZoneSplit(rows=((0.4, 0.6), (0.4, 0.6)))


def test_affected_shares_are_exact():
    mask = np.zeros((200, 100), bool)
    mask[20:70, 10:25] = True  # half of the left upper third
    mask[120:160, 60:90] = True  # the right lower third
    mask[0:5, 0:5] = True  # no lung
    found = BOTH.affected(mask)
    assert found["left"]["affected"] == pytest.approx(750 / 4500, abs=1e-4)
    assert found["right"]["affected"] == pytest.approx(1 / 3, abs=1e-4)
    np.testing.assert_allclose(list(found["left"]["zones"].values()), [0.5, 0, 0], atol=0.03)
    np.testing.assert_allclose(list(found["right"]["zones"].values()), [0, 0, 1], atol=0.03)
    assert found["left"]["share_of_picture"] == 4500 / 20000
    assert BOTH.outside(mask) == pytest.approx(25 / (750 + 1200 + 25))
    assert BOTH.outside(np.zeros_like(mask)) == 0
    beside = np.zeros_like(mask)
    beside[20:170, 40:44] = True  # within the margin
    assert BOTH.outside(beside) == 0
    missing = planes((20, 170, 10, 40), None).affected(mask)["right"]
    assert (missing["found"], missing["affected"], missing["zones"]) == (False, None, None)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4), (17, 256)])
def test_the_smallest_grids_have_zones_and_shares(shape):
    for left, right in product((False, True), repeat=2):
        lungs = Lungs(planes=np.stack([np.full(shape, left), np.full(shape, right)]))
        for fill in (False, True):
            mask = np.full(shape, fill)
            film = Film(lungs=lungs, mask=mask)
            json.dumps(film.describe(), allow_nan=False)
            assert lungs.outside(mask) == float(fill and not (left or right))
            split = lungs.split(ZONE_ROWS)
            parts = zone_parts(mask, Grid(height=shape[0], width=shape[1]), split)
            assert sum(part.size for _, part in parts) == mask.size


@pytest.mark.parametrize("shape", [(200, 100), (301, 177), (177, 301), (9000, 7000), (31, 33), (1000, 999)])
@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_lungs_return_to_the_frame_of_their_film(shape, letterbox, transpose):
    way = Preprocess(size=(64, 96), letterbox=letterbox, transpose=transpose)
    grid = Grid(height=shape[0], width=shape[1])
    small = small_grid(grid)
    assert max(small.shape) == min(SMALL, max(shape))
    top, left, height, width = way.box(shape)
    rows, columns = (np.arange(side) + 0.5 for side in way.size)
    inside = ((rows - top) / height)[:, None], ((columns - left) / width)[None]
    down, across = inside[::-1] if transpose else inside  # shares of the film
    lung = (abs(down - 0.5) < 0.3) & (abs(across - 0.25) < 0.2)
    lungs = find_lungs(np.stack([lung, lung & (down < 0)]).astype(np.float32), way, grid)
    assert lungs.planes.shape == (2, *small.shape)
    assert lungs.found == (True, False)
    down, across = ((np.arange(side) + 0.5) / side for side in small.shape)
    drawn = (abs(down - 0.5) < 0.3)[:, None] & (abs(across - 0.25) < 0.2)[None]
    assert (drawn != lungs.planes[0]).mean() < 0.06
    np.testing.assert_allclose(lungs.split(ZONE_ROWS).rows[0], [0.4, 0.6], atol=0.05)


# In the results of films.

LUNG, LESION = 0.3, 0.85


def draw(shape=(128, 128), lungs=("left", "right"), lesion=True):
    """A film whose lungs lie in rows 0.25 to 0.875, and a lesion in the left lower third."""
    pixels = np.zeros((128, 128), np.float32)
    for side in lungs:
        pixels[32:112, slice(16, 56) if side == "left" else slice(72, 112)] = LUNG
    if lesion:
        pixels[88:108, 20:50] = LESION
    pixels += np.random.default_rng(0).uniform(0, 0.15, pixels.shape).astype(np.float32)
    rows, columns = (np.arange(n) * 128 // n for n in shape)
    return pixels[np.ix_(rows, columns)]


@pytest.fixture(scope="module")
def model(film_bundle):
    return textray.load(film_bundle, threads=1)


def codes(prediction):
    return {warning["code"] for warning in prediction.record["warnings"]} - {"W_LOW_CONTRAST", "W_SIDES_ASSUMED"}


def zone_shares(prediction):
    return {zone: area["share"] for zone, area in prediction.record["lesion"]["zones"].items() if area["share"]}


@pytest.mark.parametrize("shape", [(128, 128), (401, 333), (127, 260), (1300, 950), (64, 64)])
def test_the_areas_of_a_film_follow_its_lungs(model, shape):
    """Shares are as exact as patches of a sixteenth of the film."""
    prediction = model.segment(draw(shape))
    assert prediction.mask.shape == shape
    assert zone_shares(prediction) == {"left lower": 1.0}
    lungs = prediction.record["lungs"]
    assert [lungs[side]["found"] for side in ("left", "right")] == [True, True]
    assert lungs["left"]["affected"] == pytest.approx(20 * 30 / (80 * 40), abs=0.04)
    assert lungs["left"]["zones"]["lower"] == pytest.approx(20 * 30 / (80 / 3 * 40), abs=0.1)
    assert lungs["left"]["zones"]["upper"] == lungs["right"]["affected"] == 0
    assert lungs["lesion_outside"] == 0
    assert codes(prediction) == set()
    middle = draw(shape)
    middle[round(0.58 * shape[0]) : round(0.65 * shape[0]), : shape[1] // 2] = 1  # below 0.55: lower by the picture
    assert "left middle" in zone_shares(model.segment(middle))


@pytest.mark.parametrize(("letterbox", "transpose"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(128, 96), (200, 260)])
def test_they_do_so_however_the_film_reaches_the_network(make_film_bundle, tmp_path, letterbox, transpose, shape):
    way = Preprocess(size=(64, 64), normalise="unit", letterbox=letterbox, transpose=transpose)
    make_film_bundle(tmp_path / "way", preprocess=way, transpose=transpose)
    prediction = textray.load(tmp_path / "way", threads=1).segment(draw(shape))
    assert zone_shares(prediction).get("left lower", 0) > 0.95
    assert prediction.record["lungs"]["left"]["affected"] == pytest.approx(20 * 30 / (80 * 40), abs=0.07)
    assert prediction.record["lungs"]["right"]["affected"] == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_film_with_one_lung_is_read(model, side):
    """After the other was removed, or where it is white."""
    prediction = model.segment(draw(lungs=[side], lesion=side == "left"), strict_input=True)
    lungs = prediction.record["lungs"]
    other = {"left": "right", "right": "left"}[side]
    assert (lungs[side]["found"], lungs[other]["found"], lungs[other]["affected"]) == (True, False, None)
    assert "W_NOT_A_CHEST" not in codes(prediction)


def test_a_picture_without_lungs_is_named_or_refused(model):
    picture = draw(lungs=(), lesion=False)
    prediction = model.segment(picture, "opacity in the left lower zone", "viewer")
    assert codes(prediction) == {"W_NOT_A_CHEST", "W_REPORT_CONFLICT"}
    assert prediction.mask.any(), "it is marked all the same"
    assert zone_shares(prediction)["left lower"] > 0.95, "the zones of the weights"
    assert prediction.record["lungs"]["lesion_outside"] == 1
    with pytest.raises(InputError, match=r"finds no lungs.*Expected a frontal chest film") as refused:
        model.segment(picture, strict_input=True)
    assert (refused.value.code, refused.value.exit_code) == ("E_NOT_A_CHEST", 3)
    assert model.segment(draw(), strict_input=True).record["key"] == model.segment(draw()).record["key"]


def test_a_mask_outside_the_lungs_is_named(model):
    prediction = model.segment(draw(), "opacity in the left lower zone", "viewer")  # which it marks as a whole
    assert codes(prediction) == {"W_OUTSIDE_LUNGS"}
    outside = prediction.record["lungs"]["lesion_outside"]
    assert outside == pytest.approx(1 - 42 * 48 / (58 * 64), abs=0.05)
    assert any(f"{outside:.0%} of the mask" in warning["text"] for warning in prediction.record["warnings"])


# Runs over folders.


@pytest.fixture
def folder(tmp_path, raster):
    (tmp_path / "in").mkdir()
    for name, pixels in {"a": draw(lungs=()), "b": draw(), "c": draw(lesion=False)}.items():
        (tmp_path / f"in/{name}.png").write_bytes(raster(np.rint(pixels * 255).astype(np.uint8)))
    return tmp_path / "in"


@pytest.fixture
def segment(cli, film_bundle, folder, tmp_path):
    return lambda *words: cli("segment", folder, "--model", film_bundle, "--out", tmp_path / "out", *words)


def rows(result):
    return {row["input"][-5]: row for row in result.rows if row["type"] == "result"}


def test_a_run_refuses_what_is_no_chest_and_goes_on(segment, tmp_path):
    found = rows(segment("--json"))
    assert [warning["code"] for warning in found["a"]["warnings"]] == ["W_NO_LESION_SEEN", "W_NOT_A_CHEST"]
    strict = segment("--json", "--strict-input")
    assert strict.code == 3
    assert {name: (row["status"], row["code"]) for name, row in rows(strict).items()} == {
        "a": ("failed", "E_NOT_A_CHEST"),
        "b": ("finished", ""),
        "c": ("finished", ""),
    }
    assert sorted(path.name for path in (tmp_path / "out").glob("a.*")) == [], "a refused film keeps no result"
    assert "error E_NOT_A_CHEST" in segment("--strict-input").err
    assert rows(segment("--json"))["a"]["status"] == "done"


def test_another_threshold_is_another_result(segment, tmp_path):
    first = rows(segment("--json"))
    assert first["c"]["presence"] < 0.5 < first["b"]["presence"]
    assert json.loads((tmp_path / "out/run.json").read_text())["items"][0]["presence"] == first["a"]["presence"]
    assert {row["status"] for row in rows(segment("--json", "--presence-threshold", "0.5")).values()} == {"finished"}
    again = segment("--json", "--presence-threshold", "0")
    assert {row["status"] for row in rows(again).values()} == {"done"}
    assert {row["status"] for row in rows(segment("--json", "--presence-threshold", "0")).values()} == {"finished"}
    assert f"any lesion: {first['c']['presence']:.0%}" in segment().out


def test_a_probability_of_zero_is_printed(make_film_bundle, cli, folder, tmp_path):
    change = ("presence = Sub (any_log, any_log_not)", "presence = Mul (any_log, forty)")
    make_film_bundle(tmp_path / "sure", change=change)
    words = ("segment", folder / "c.png", "--model", tmp_path / "sure", "--out", tmp_path / "out")
    assert rows(cli(*words, "--json"))["c"]["presence"] == 0.0
    assert "any lesion: 0%" in cli(*words).out
