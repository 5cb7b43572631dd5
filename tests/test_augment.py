"""Augmentation: image, mask, report and maps change together, and maps come back."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from textray.augment import Augment, Geometry, Preset, blur, can_flip, coarse, flip, through_jpeg, warp
from textray.data.phantom import draw
from textray.errors import ShapeError, UsageError
from textray.records import Laterality, Report, Zones, ZoneState
from textray.text.zones import parse_caption, sentence

PRESETS = get_args(Preset)
UPPER_LEFT = Zones.from_present([1, 0, 0, 0, 0, 0])


def report(zones=UPPER_LEFT):
    return Report(zones=zones, text=sentence(zones))


def film(zones=UPPER_LEFT, size=(64, 56)):
    pixels, mask, _ = draw(1, size, zones)
    return pixels, mask, report(zones)


def blob(size=(80, 72)):
    """A bright ellipse on dark ground, off the centre both ways."""
    down, across = np.mgrid[: size[0], : size[1]]
    mask = ((down - 30) / 12) ** 2 + ((across - 28) / 8) ** 2 < 1
    return np.where(mask, 0.9, 0.1).astype(np.float32), mask


def dice(first, second):
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_what_comes_back_is_still_a_sample(name, size):
    pixels, mask, words = film(size=size)
    if size != (64, 64):
        pixels = np.stack([pixels, pixels**2, 1 - pixels], axis=-1)  # in colour
    before = pixels.copy(), mask.copy()
    pixels.flags.writeable = mask.flags.writeable = False
    rng = np.random.default_rng(0)
    for _ in range(40):
        moved, lesion, after = Augment.preset(name)(pixels, mask, words, rng)
        assert (moved.shape, lesion.shape) == (pixels.shape, size)
        assert moved.dtype == np.float32
        assert lesion.dtype == np.bool_
        assert 0 <= moved.min() <= moved.max() <= 1
        assert np.isfinite(moved).all()
        assert after.text == sentence(after.zones)
        if name == "none":
            assert after is words
            assert np.array_equal(moved, pixels)
            assert np.array_equal(lesion, mask)
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("name", PRESETS)
def test_same_state_same_change_traced_or_not(name):
    augment = Augment.preset(name)
    for seed in range(8):
        first = augment(*film(), np.random.default_rng(seed))
        for again in (
            augment(*film(), np.random.default_rng(seed)),
            augment.traced(*film(), np.random.default_rng(seed)),
        ):
            np.testing.assert_array_equal(first[0], again[0])
            np.testing.assert_array_equal(first[1], again[1])
            assert first[2] == again[2]


def test_paper_zooms_one_sample_in_ten():
    pixels, mask = blob((120, 110))
    words = report()
    rng = np.random.default_rng(0)
    results = [Augment.preset("paper")(pixels, mask, words, rng) for _ in range(1000)]
    changed = [r for r in results if not np.array_equal(r[0], pixels)]
    assert 70 < len(changed) < 130
    areas = [r[1].sum() / mask.sum() for r in changed]
    assert 0.95**2 - 0.05 < min(areas) < 1.0
    assert 1.3 < max(areas) < 1.2**2 + 0.05
    assert all(r[2] is words for r in results)


def test_flip_twice_is_identity():
    for index in range(64):
        pixels, mask, words = film(Zones.from_index(index), (20, 24))
        back = flip(*flip(pixels, mask, words))
        np.testing.assert_array_equal(back[0], pixels)
        np.testing.assert_array_equal(back[1], mask)
        assert back[2] == words


def test_flip_moves_the_lesion_and_its_words_to_the_other_half():
    pixels, mask, words = film()
    assert mask[:, :28].any()
    assert not mask[:, 28:].any()
    moved, lesion, after = flip(pixels, mask, words)
    assert lesion[:, 28:].any()
    assert not lesion[:, :28].any()
    np.testing.assert_array_equal(lesion[:, ::-1], mask)
    np.testing.assert_array_equal(moved[:, ::-1], pixels)
    assert after.text == "unilateral pulmonary infection, one infected area, upper right lung."
    assert after.zones == parse_caption(after.text).zones == words.zones.mirror()


@pytest.mark.parametrize("name", ["none", "paper", "light", "sgseg", "hospitals", "strong"])
def test_nothing_but_a_flip_swaps_sides_or_turns_over(name):
    pixels, mask = blob()
    words, rng = report(), np.random.default_rng(2)
    still = replace(Augment.preset(name), flip_p=0.0)
    assert name == "strong" or still == Augment.preset(name)
    for _ in range(80):
        _, lesion, after = still(pixels, mask, words, rng)
        assert after is words
        if lesion.any():
            down, across = (axis.mean() for axis in np.nonzero(lesion))
            assert across < 46
            assert down < 54


@pytest.mark.parametrize(
    "words",
    [
        Report(zones=UPPER_LEFT, text="left", laterality=Laterality.UNKNOWN),
        Report(zones=Zones(), text="dense on the left", laterality=Laterality.UNKNOWN, free=True),
        Report(zones=Zones(), text="patchy shadow near the marker on the left"),
        Report(zones=Zones((ZoneState.ABSENT,) * 3 + (ZoneState.UNMENTIONED,) * 3), text="left lung clear"),
    ],
)
def test_words_that_cannot_be_swapped_are_not_flipped(words):
    pixels, mask, _ = film()
    assert not can_flip(words)
    same = Augment(flip_p=1.0)(pixels, mask, words, np.random.default_rng(0))
    np.testing.assert_array_equal(same[0], pixels)
    assert same[2] is words
    with pytest.raises(UsageError, match="cannot be swapped"):
        flip(pixels, mask, words)


def test_flip_without_words_and_from_the_patients_side():
    pixels, mask, _ = film()
    assert flip(pixels, mask, Report(zones=Zones()))[2].text is None
    assert flip(pixels, mask, report(Zones()))[2].text == "no infection."
    patient = Report(zones=UPPER_LEFT, text="right upper lobe", laterality=Laterality.PATIENT, sides_from="tag")
    after = flip(pixels, mask, patient)[2]
    assert after.zones == UPPER_LEFT.mirror()
    assert (after.text, after.laterality) == (sentence(UPPER_LEFT.mirror()), Laterality.VIEWER)


@pytest.mark.parametrize("fill", ["black", "edge"])
@pytest.mark.parametrize("bicubic", [False, True])
def test_warp_moves_image_and_mask_alike(fill, bicubic):
    pixels, mask = blob()
    rng = np.random.default_rng(3)
    for _ in range(40):
        zoom, (down, across) = rng.uniform(0.9, 1.2), rng.uniform(-6, 6, 2)
        way = Geometry(angle=rng.uniform(-0.2, 0.2), zoom=zoom, down=down, across=across)
        moved, lesion = warp(pixels, mask, way, bicubic=bicubic, fill=fill)
        assert dice(moved > 0.5, lesion) > 0.95
        assert lesion.sum() == pytest.approx(mask.sum() * zoom**2, rel=0.05)


def test_warp_shifts_whole_pixels_exactly_and_turns_clockwise():
    pixels, mask = blob()
    moved, lesion = warp(pixels, mask, Geometry(down=5, across=-3))
    np.testing.assert_array_equal(moved[5:, :-3], pixels[:-5, 3:])
    np.testing.assert_array_equal(lesion[5:, :-3], mask[:-5, 3:])
    assert moved[:5].max() == 0
    point = np.zeros((61, 61), np.bool_)
    point[8:13, 28:33] = True  # straight above the centre
    _, turned = warp(point.astype(np.float32), point, Geometry(angle=np.deg2rad(30)))
    down, across = (axis.mean() for axis in np.nonzero(turned))
    assert (down, across) == pytest.approx((30 - 20 * np.cos(np.pi / 6), 30 + 20 * np.sin(np.pi / 6)), abs=0.6)


def test_edges_are_repeated_or_black():
    pixels, mask = np.full((30, 40), 0.5, np.float32), np.zeros((30, 40), np.bool_)
    black, _ = warp(pixels, mask, Geometry(angle=0.1, zoom=0.8, down=4))
    edge, _ = warp(pixels, mask, Geometry(angle=0.1, zoom=0.8, down=4), fill="edge")
    assert black.min() == 0
    np.testing.assert_allclose(edge, 0.5, atol=1e-6)


def test_borders_are_dark_and_hold_no_lesion():
    pixels, mask = np.full((50, 60), 0.5, np.float32), np.ones((50, 60), np.bool_)
    rng = np.random.default_rng(0)
    widths = set()
    for _ in range(20):
        moved, lesion, _ = Augment(border_p=1.0, border=0.2)(pixels, mask, report(), rng)
        np.testing.assert_array_equal(moved > 0, lesion)
        assert lesion[10:40, 12:48].all()
        widths.add(int(lesion.sum()))
    assert len(widths) > 10


def test_an_erased_rectangle_is_painted_with_the_mean_and_leaves_mask_and_words():
    pixels, mask, words = film(size=(60, 50))
    rng = np.random.default_rng(0)
    areas, places, covered = set(), set(), 0
    for _ in range(60):
        moved, lesion, after = Augment(erase_p=1.0, erase=0.3)(pixels, mask, words, rng)
        np.testing.assert_array_equal(lesion, mask)
        assert after is words
        down, across = np.nonzero(moved != pixels)
        if not len(down):
            continue
        box = slice(down.min(), down.max() + 1), slice(across.min(), across.max() + 1)
        assert moved[box].size <= 18 * 15
        np.testing.assert_allclose(moved[box], pixels.mean(), atol=1e-6)
        areas.add(moved[box].size)
        places.add((box[0].start, box[1].start))
        covered += bool(mask[box].any())
    assert len(areas) > 20
    assert len(places) > 40
    assert covered > 3  # lesions are hidden too, and stay to be found


def test_sgseg_crops_masks_and_rotates_half_of_the_samples():
    pixels, mask = blob((60, 50))
    rng = np.random.default_rng(0)
    recipe = Augment.preset("sgseg")
    results = [recipe(pixels, mask, report(), rng) for _ in range(400)]
    warped = sum(not np.array_equal(lesion, mask) for _, lesion, _ in results)
    untouched = sum(np.array_equal(moved, pixels) for moved, _, _ in results)
    assert 260 < warped < 330  # three of four are turned or cropped
    assert 30 < untouched < 75  # one of eight is left alone
    assert max(lesion.sum() for _, lesion, _ in results) < mask.sum() * (1 / 0.8) ** 2 * 1.05
    assert recipe.flip_p == 0


@pytest.mark.parametrize("setting", ["brightness", "contrast", "gamma", "window", "resize", "blur", "noise", "jpeg"])
def test_intensity_leaves_the_geometry(setting):
    pixels, mask, words = film()
    change = {
        "brightness": Augment(intensity_p=1.0, brightness=0.1),
        "contrast": Augment(intensity_p=1.0, contrast=0.3),
        "gamma": Augment(intensity_p=1.0, gamma=1.5),
        "window": Augment(intensity_p=1.0, window=0.1),
        "resize": Augment(resize_p=1.0, resize=0.3),
        "blur": Augment(blur_p=1.0, blur_pixels=1.5),
        "noise": Augment(noise_p=1.0, noise=0.05),
        "jpeg": Augment(jpeg_p=1.0, jpeg_quality=20),
    }[setting]
    moved, lesion, after = change(pixels, mask, words, np.random.default_rng(1))
    assert np.abs(moved - pixels).max() > 0.005
    assert np.corrcoef(moved.ravel(), pixels.ravel())[0, 1] > 0.95
    np.testing.assert_array_equal(lesion, mask)
    assert after is words


def test_blur_keeps_the_mean_and_spreads_a_point():
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 1
    spread = blur(point, 2.0)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    down, _ = np.mgrid[:31, :31]
    assert np.sqrt((spread * (down - 15) ** 2).sum()) == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(blur(np.full((9, 5), 0.3, np.float32), 4.0), 0.3, atol=1e-6)
    np.testing.assert_array_equal(blur(point, 0.0), point)


def test_what_is_made_coarse_keeps_its_size_and_mean_and_loses_detail():
    down, across = np.mgrid[:40, :50]
    fine, broad = ((down + across) % 2).astype(np.float32), (across / 49).astype(np.float32)
    for pixels in (fine, broad, np.stack([fine, broad, broad], -1)):
        assert coarse(pixels, 0.4).shape == pixels.shape
        assert coarse(pixels, 0.4).mean() == pytest.approx(pixels.mean(), abs=0.02)
        np.testing.assert_array_equal(coarse(pixels, 1.0), pixels)
    assert coarse(fine, 0.4).std() < 0.2 * fine.std()
    np.testing.assert_allclose(coarse(broad, 0.4), broad, atol=0.04)
    assert coarse(fine, 0.001).shape == fine.shape  # one pixel on the way


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_costs_more_the_lower_its_quality(colour):
    pixels, _, _ = film()
    pixels = np.stack([pixels, pixels**2, pixels], axis=-1) if colour else pixels
    losses = []
    for quality in (95, 30, 5):
        found = through_jpeg(pixels + np.float32(0.3), quality)  # may be out of range before, not after
        assert (found.shape, found.dtype) == (pixels.shape, np.float32)
        assert 0 <= found.min() <= found.max() <= 1
        np.testing.assert_allclose(found * 255, np.rint(found * 255), atol=1e-4)
        losses.append(np.abs(found - np.clip(pixels + 0.3, 0, 1)).mean())
    assert losses[0] < 0.02 < losses[2]
    assert losses == sorted(losses)


def test_hospitals_changes_nearly_every_film_and_never_its_sides():
    recipe, rng = Augment.preset("hospitals"), np.random.default_rng(0)
    pixels, mask = blob()
    results = [recipe(pixels, mask, report(), rng) for _ in range(100)]
    assert recipe.flip_p == recipe.erase_p == 0
    assert sum(not np.array_equal(moved, pixels) for moved, _, _ in results) > 95
    assert all(lesion.any() for _, lesion, _ in results)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rotate_degrees", 90.0),
        ("flip_p", 1.5),
        ("scale", (1.2, 0.9)),
        ("gamma", 0.5),
        ("border", 0.6),
        ("erase", 0.5),
        ("noise", -1.0),
        ("resize", 0.0),
        ("jpeg_quality", 0),
        ("jpeg_p", 1.1),
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(UsageError, match=setting):
        Augment(**{setting: value})


def test_unknown_presets_and_shapes_are_refused():
    with pytest.raises(UsageError, match="'strong'"):
        Augment.preset("strogn")
    pixels, mask, words = film()
    with pytest.raises(ShapeError, match=r"\(h, w\)"):
        Augment()(pixels, mask[:-1], words, np.random.default_rng(0))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_map_goes_where_the_mask_went_and_comes_back(preset):
    pixels, mask = blob()
    words = report()
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(60):
        _, lesion, after, way = Augment.preset(preset).traced(pixels, mask, words, rng)
        there = way.forward(mask.astype(np.float32))
        if lesion.sum() > 50:
            assert dice(there >= 0.5, lesion) > 0.95
        assert way.flipped == (after is not words)
        again, seen = way.back(there)
        assert again.shape == seen.shape == mask.shape
        if (mask & seen).sum() > 50:
            assert dice((again >= 0.5) & seen, mask & seen) > 0.93
        moved += way.warped
    assert moved > 0 or preset in {"none", "flips"}


def test_whole_pixels_and_flips_come_back_exactly():
    plane = np.random.default_rng(0).random((9, 12), np.float32)
    way = Geometry(flipped=True, down=2, across=-3)
    there = way.forward(plane)
    np.testing.assert_allclose(there[2:, :-3], plane[:-2, ::-1][:, 3:], atol=1e-6)
    assert not there[:2].any()
    assert not there[:, -3:].any()
    back, seen = way.back(there)
    np.testing.assert_allclose(back[seen], plane[seen], atol=1e-6)
    expected = np.zeros((9, 12), bool)
    expected[:-2, :-3] = True  # the two lowest rows left it, and the three columns that the flip had put first
    np.testing.assert_array_equal(seen, expected)
    same, everywhere = Geometry().back(plane)
    np.testing.assert_array_equal(same, plane)
    assert everywhere.all()


def test_what_is_covered_is_not_seen():
    plane = np.ones((8, 10), np.float32)
    way = Geometry(inside=(1, 7, 2, 10), hidden=(3, 5, 4, 6))
    there = way.forward(plane)
    assert there.sum() == 6 * 8  # cleared under the border, kept under what is painted over
    seen = way.back(there)[1]
    assert seen.sum() == 6 * 8 - 4
    assert not seen[0].any()
    assert not seen[3:5, 4:6].any()
    mirrored = way._replace(flipped=True).back(there)[1]
    np.testing.assert_array_equal(mirrored, seen[:, ::-1])


def test_a_zoom_pushes_the_rim_out():
    way = Geometry(zoom=2.0)
    seen = way.back(np.zeros((20, 30), np.float32))[1]
    assert abs(int(seen.sum()) - 10 * 15) <= 26  # the middle half of each side, to a pixel
    assert seen[6:14, 9:21].all()
    assert not seen[:4].any()
    assert not seen[:, :6].any()
