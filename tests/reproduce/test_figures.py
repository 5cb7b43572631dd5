"""Figures 2 and 3: which cases, which columns, and masks drawn over the right film."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.errors import UsageError
from textray.reproduce.catalogue import Order
from textray.reproduce.figures import DEFAULT_METHODS, choose, read_methods, run


@pytest.fixture
def val(qata):
    return open_reader("qata_cov19", qata).samples("val")


def order(root, out, *models, **changes):
    return Order(name="mmi-unet-fig2", roots={"qata_cov19": root}, out=out, models=models, threads=1, **changes)


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


def test_a_missing_root_is_asked_for(cli, tmp_path):
    result = cli("reproduce", "mmi-unet-fig3", "--out", tmp_path)
    assert result.code == 2
    assert "--root mosmed_plus=DIR" in result.err


def test_the_command_draws(cli, qata, tiny_bundle, tmp_path):
    result = cli(
        "reproduce", "mmi-unet-fig2", "--root", f"qata_cov19={qata}", "--model", f"M={tiny_bundle}", "--count", "2",
        "--threads", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0
    assert len(json.loads((tmp_path / "out/mmi-unet-fig2.json").read_text())["cases"]) == 2


def test_methods_that_write_their_own_report_stand_beside_those_that_do_not(qata, writing_bundle, tmp_path, val):
    methods = tuple(f"{end or 'told'}={writing_bundle}{end}" for end in ("", "@none", "@generated"))
    whole = order(qata, tmp_path / "out", *methods, cases=(val[0].image_id,))
    assert run(replace(whole, name="sgseg-fig3")) == 0
    found = json.loads((tmp_path / "out/sgseg-fig3.json").read_text())
    assert [method["text"] for method in found["methods"]] == ["oracle", "none", "generated"]
    dice = found["cases"][0]["dice"]
    assert dice["told"] > dice["@none"] + 0.2, "told nothing, it must not write a report either"
    assert len(set(dice.values())) == 3


def test_a_report_of_its_own_is_refused_of_weights_that_write_none(qata, tiny_bundle, tmp_path):
    with pytest.raises(UsageError, match="writes no report of its own"):
        run(order(qata, tmp_path / "out", f"A={tiny_bundle}@generated"))
