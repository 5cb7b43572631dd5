"""SGSeg's Figures 4 and 5: what a network wrote beside the caption, and where it looked."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.errors import UsageError
from textray.reproduce.catalogue import Order
from textray.reproduce.own_report_figures import mark, run

RED = np.array([200, 40, 40])


@pytest.fixture
def shown(make_qata, tmp_path):
    """A fake whose films are bright where their lesions are."""
    return make_qata(tmp_path, bright=200)


def order(name, root, out, *models, **changes):
    return Order(name=name, roots={"qata_cov19": root}, out=out, models=models, threads=1, split="val", **changes)


def drawn(out, name):
    with PILImage.open(out / f"{name}.png") as picture:
        return np.asarray(picture).astype(int), json.loads((out / f"{name}.json").read_text())


def test_words_that_differ_are_marked():
    first, second = mark(
        "Bilateral infection, two infected areas, lower left lung and upper right lung.",
        "unilateral infection, one infected area, lower left lung",
    )
    assert [word for word, marked in first if marked] == [
        "Bilateral",
        "two",
        "areas,",
        "and",
        "upper",
        "right",
        "lung.",
    ]
    assert [word for word, marked in second if marked] == ["unilateral", "one", "area,"]
    assert not any(marked for side in mark("Lower left lung.", "lower left lung") for _, marked in side)


def test_reports_stand_beside_captions(shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "writes", zone_thresholds=(0.2,) * 6)
    assert run(order("sgseg-fig4", shown, tmp_path / "out", f"M={tmp_path / 'writes'}", count=2)) == 0
    _, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert [case["convention"] for case in found["cases"]] == ["viewer", "viewer"]
    captions = {s.image_id: s.report for s in open_reader("qata_cov19", shown).samples("val")}
    for case in found["cases"]:
        assert case["caption"] == captions[case["id"]].text
        assert set(case["zones_viewer"].values()) == {captions[case["id"]].zones.index}
        assert not any(case["differs"].values())


def test_marks_are_drawn_where_reports_differ(shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "all", zone_thresholds=(0.0,) * 6)  # writes every zone, whatever the film
    assert run(order("sgseg-fig4", shown, tmp_path / "out", f"M={tmp_path / 'all'}", count=1)) == 0
    pixels, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert found["cases"][0]["zones_viewer"]["report"] == 63
    assert "six" in found["cases"][0]["differs"]["report"]
    assert (pixels == RED).all(2).sum() > 50


def test_a_film_on_which_nothing_is_written_has_no_report(shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "mute", zone_thresholds=(1.0,) * 6)
    assert run(order("sgseg-fig4", shown, tmp_path / "out", f"M={tmp_path / 'mute'}", count=1)) == 0
    pixels, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert found["cases"][0]["report"] is None
    assert not (pixels == RED).all(2).any()


def test_attention_lies_where_the_network_looked(shown, writing_bundle, tmp_path):
    assert run(order("sgseg-fig5", shown, tmp_path / "out", f"M={writing_bundle}", count=2)) == 0
    pixels, found = drawn(tmp_path / "out", "sgseg-fig5")
    for case in found["cases"]:  # the bundle looks at what is bright, which is the lesion
        assert case["attention_in_truth"] > 2 * case["truth_share"]
    assert pixels.shape[1] == 2 * 16 + 4 * 224 + 3 * 6
    left = 16 + 2 * (224 + 6)
    top = 16 + 19 + 6
    panel = pixels[top : top + 224, left : left + 210].sum(2)
    case = found["cases"][0]
    caption = next(s for s in open_reader("qata_cov19", shown).samples("val") if s.image_id == case["id"]).report.text
    halves = panel[:112, 112:].mean(), panel[112:, :112].mean()  # upper right, lower left of the film
    assert (halves[0] > halves[1]) == ("upper right" in caption)


@pytest.mark.parametrize("words", [("A={}", "B={}"), ("A={}@none",)])
def test_one_network_with_its_own_report_is_shown(words, shown, writing_bundle, tmp_path):
    with pytest.raises(UsageError, match="shows one network"):
        run(order("sgseg-fig4", shown, tmp_path / "out", *(word.format(writing_bundle) for word in words)))


def test_weights_that_write_no_report_are_refused(shown, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="writes no report of its own"):
        run(order("sgseg-fig4", shown, tmp_path / "out", f"A={tiny_bundle}"))
    assert not (tmp_path / "out").exists()


def test_a_missing_root_is_asked_for(tmp_path):
    with pytest.raises(UsageError, match="--root qata_cov19=DIR"):
        run(Order(name="sgseg-fig5", out=tmp_path))
