"""Figures of masks and of own reports: which cases, which columns, and what is drawn where."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.errors import UsageError
from textray.reproduce import Order
from textray.reproduce.figures import DEFAULT_METHODS, choose, mark, read_methods, run

RED = np.array([200, 40, 40])


@pytest.fixture
def val(qata):
    return open_reader("qata_cov19", qata).samples("val")


def order(root, out, *models, name="mmi-unet-fig2", **changes):
    return Order(name=name, roots={"qata_cov19": root}, out=out, models=models, threads=1, **changes)


@pytest.fixture
def shown(make_qata, tmp_path):
    """A fake whose films are bright where their lesions are."""
    return make_qata(tmp_path, bright=200)


def drawn(out, name):
    with PILImage.open(out / f"{name}.png") as picture:
        return np.asarray(picture).astype(int), json.loads((out / f"{name}.json").read_text())


def test_methods_are_named():
    assert read_methods(()) == DEFAULT_METHODS
    with_text, without = read_methods(("A=some/folder", "B =c=some/folder@none"))
    assert (with_text.label, with_text.bundle, with_text.text) == ("A", "some/folder", "oracle")
    assert (without.label, without.bundle, without.text) == ("B", "c=some/folder", "none")
    (own,) = read_methods(("C=some/folder@generated",))
    assert (own.bundle, own.text) == ("some/folder", "generated")


@pytest.mark.parametrize("words", [("folder",), ("=folder",), ("A=",), ("A=@none",), ("A=x", "A=y")])
def test_bad_methods_are_refused(words):
    with pytest.raises(UsageError):
        read_methods(words)


def test_cases_are_drawn_with_different_zones_and_always_the_same(val):
    drawn = choose(val, (), count=2)
    assert drawn == choose(list(reversed(val)), (), count=2)
    assert drawn[0].report.zones.index != drawn[1].report.zones.index
    assert len(choose(val, (), count=3)) == 3
    assert len(choose(val, (), count=99)) == len(val)


def test_cases_are_named_by_id(val):
    ids = [val[2].image_id, val[0].image_id, val[2].image_id]
    assert [case.image_id for case in choose(val, ids, count=4)] == ids[:2]
    with pytest.raises(UsageError, match="a case is not in the split"):
        choose(val, ("nobody",), count=4)


def test_the_figure_shows_what_the_words_do(qata, tiny_bundle, tmp_path, val):
    case = next(sample for sample in val if "lower left" in sample.report.text)
    methods = (f"told={tiny_bundle}", f"silent={tiny_bundle}@none")
    assert run(order(qata, tmp_path / "out", *methods, cases=(case.image_id,))) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mmi-unet-fig2.json", "mmi-unet-fig2.png"]
    found = json.loads((tmp_path / "out/mmi-unet-fig2.json").read_text())
    assert found["data"] == {"name": "qata_cov19", "split": "val", "laterality": "viewer"}
    assert [method["text"] for method in found["methods"]] == ["oracle", "none"]
    told = found["cases"][0]
    assert told["caption"] == case.report.text
    assert told["dice"]["told"] > 0.5
    assert told["dice"]["told"] > told["dice"]["silent"] + 0.2
    with PILImage.open(tmp_path / "out/mmi-unet-fig2.png") as picture:
        pixels = np.asarray(picture).astype(int)
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 180) & (pixels[..., 2] < 60)
    truth = np.flatnonzero(yellow[:, 246:456].any(0))  # second column: the lesion lies in the left half of the film
    assert len(truth) > 20
    assert truth.max() < 110


def test_a_network_without_text_is_told_nothing(qata, make_bundle, tmp_path):
    make_bundle(tmp_path / "mute", reads_text=False)
    assert run(order(qata, tmp_path / "out", f"U={tmp_path / 'mute'}", count=1)) == 0
    assert json.loads((tmp_path / "out/mmi-unet-fig2.json").read_text())["methods"][0]["text"] == "none"


@pytest.mark.parametrize(("name", "data"), [("mmi-unet-fig3", "mosmed_plus"), ("sgseg-fig5", "qata_cov19")])
def test_a_missing_root_is_asked_for(name, data, cli, tmp_path):
    result = cli("reproduce", name, "--out", tmp_path)
    assert result.code == 2
    assert f"--root {data}=DIR" in result.err


def test_the_command_draws(cli, qata, tiny_bundle, tmp_path):
    result = cli(
        "reproduce", "mmi-unet-fig2", "--root", f"qata_cov19={qata}", "--model", f"M={tiny_bundle}", "--count", "2",
        "--threads", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0
    assert len(json.loads((tmp_path / "out/mmi-unet-fig2.json").read_text())["cases"]) == 2


def test_methods_that_write_their_own_report_stand_beside_those_that_do_not(qata, writing_bundle, tmp_path, val):
    methods = tuple(f"{end or 'told'}={writing_bundle}{end}" for end in ("", "@none", "@generated"))
    assert run(order(qata, tmp_path / "out", *methods, name="sgseg-fig3", cases=(val[0].image_id,))) == 0
    found = json.loads((tmp_path / "out/sgseg-fig3.json").read_text())
    assert [method["text"] for method in found["methods"]] == ["oracle", "none", "generated"]
    dice = found["cases"][0]["dice"]
    assert dice["told"] > dice["@none"] + 0.2, "told nothing, it must not write a report either"
    assert len(set(dice.values())) == 3


def test_a_report_of_its_own_is_refused_of_weights_that_write_none(qata, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="writes no report of its own"):
        run(order(qata, tmp_path / "out", f"A={tiny_bundle}@generated"))


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
    assert run(order(shown, tmp_path / "out", f"M={tmp_path / 'writes'}", count=2, name="sgseg-fig4")) == 0
    _, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert [case["convention"] for case in found["cases"]] == ["viewer", "viewer"]
    captions = {s.image_id: s.report for s in open_reader("qata_cov19", shown).samples("val")}
    for case in found["cases"]:
        assert case["caption"] == captions[case["id"]].text
        assert set(case["zones_viewer"].values()) == {captions[case["id"]].zones.index}
        assert not any(case["differs"].values())


def test_marks_are_drawn_where_reports_differ(shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "all", zone_thresholds=(0.0,) * 6)  # writes every zone, whatever the film
    assert run(order(shown, tmp_path / "out", f"M={tmp_path / 'all'}", count=1, name="sgseg-fig4")) == 0
    pixels, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert found["cases"][0]["zones_viewer"]["report"] == 63
    assert "six" in found["cases"][0]["differs"]["report"]
    assert (pixels == RED).all(2).sum() > 50


def test_a_film_on_which_nothing_is_written_has_no_report(shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "mute", zone_thresholds=(1.0,) * 6)
    assert run(order(shown, tmp_path / "out", f"M={tmp_path / 'mute'}", count=1, name="sgseg-fig4")) == 0
    pixels, found = drawn(tmp_path / "out", "sgseg-fig4")
    assert found["cases"][0]["report"] is None
    assert not (pixels == RED).all(2).any()


def test_attention_lies_where_the_network_looked(shown, writing_bundle, tmp_path):
    assert run(order(shown, tmp_path / "out", f"M={writing_bundle}", count=2, name="sgseg-fig5")) == 0
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
        run(order(shown, tmp_path / "out", *(word.format(writing_bundle) for word in words), name="sgseg-fig4"))


def test_weights_that_write_no_report_are_refused(shown, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="writes no report of its own"):
        run(order(shown, tmp_path / "out", f"A={tiny_bundle}", name="sgseg-fig4"))
    assert not (tmp_path / "out").exists()
