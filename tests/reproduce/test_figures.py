"""Figures of masks and of own reports: which cases, which columns, and what is drawn where."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as PILImage

from textray.data.base import open_reader
from textray.errors import OutputError, UsageError
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
    return make_qata(tmp_path, bright=160)


def drawn(out, name):
    with PILImage.open(out / f"{name}.png") as picture:
        return np.asarray(picture).astype(int), json.loads((out / f"{name}.json").read_text())


def test_figures_load_no_package_of_training():
    code = "import sys, textray.reproduce.figures; print(*{'torch', 'lightning', 'yaml'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_methods_are_named():
    assert read_methods(()) == DEFAULT_METHODS
    with_text, without = read_methods(("A=some/folder", "B =c=some/folder@none"))
    assert (with_text.label, with_text.bundle, with_text.text) == ("A", "some/folder", "oracle")
    assert (without.label, without.bundle, without.text) == ("B", "c=some/folder", "none")
    (writes,) = read_methods(("C=some/folder@generated",))
    assert (writes.bundle, writes.text) == ("some/folder", "generated")
    for words in (("folder",), ("=folder",), ("A=",), ("A=@none",), ("A=x", "A=y")):
        with pytest.raises(UsageError):
            read_methods(words)


@pytest.mark.parametrize("kind", [None, "caption"])
def test_cases_are_drawn_with_other_words_or_named_by_id(kind, qata, val):
    samples = open_reader("qata_cov19", qata).phrases("val", kind=kind) if kind else val
    drawn = choose(samples, (), count=2)
    assert drawn == choose(samples[::-1], (), count=2)
    assert len({s.phrase if kind else s.report.zones.index for s in drawn}) == 2
    assert [len(choose(samples, (), count=n)) for n in (3, 99)] == [3, len(samples)]
    ids = [samples[2].image_id, samples[0].image_id, samples[2].image_id]
    assert [case.image_id for case in choose(samples, ids, count=4)] == ids[:2]
    with pytest.raises(UsageError, match="a case is not in the split"):
        choose(samples, ("nobody",), count=4)


def test_the_command_draws_what_the_words_do(cli, qata, tiny_bundle, tmp_path, val):
    case = next(sample for sample in val if "lower left" in sample.report.text)
    result = cli(
        "reproduce", "mmi-unet-fig2", "--root", f"qata_cov19={qata}", "--model", f"words={tiny_bundle}", "--model",
        f"nothing={tiny_bundle}@none", "--cases", case.image_id, "--threads", "1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mmi-unet-fig2.json", "mmi-unet-fig2.png"]
    pixels, record = drawn(tmp_path / "out", "mmi-unet-fig2")
    assert record["data"] == {"name": "qata_cov19", "split": "val", "laterality": "viewer"}
    assert [method["text"] for method in record["methods"]] == ["oracle", "none"]
    (only,) = record["cases"]
    assert only["caption"] == case.report.text
    assert only["dice"]["words"] > max(0.5, only["dice"]["nothing"] + 0.2)
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 180) & (pixels[..., 2] < 60)
    truth = np.flatnonzero(yellow[:, 246:456].any(0))  # second column: the lesion lies in the left half of the film
    assert len(truth) > 20
    assert truth.max() < 110


@pytest.mark.parametrize("end", ["png", "json"])
def test_a_file_of_somebody_else_is_no_figure_to_replace(end, qata, tiny_bundle, tmp_path):
    (tmp_path / f"mmi-unet-fig2.{end}").write_text("mine")
    with pytest.raises(OutputError, match="is of no figure, so it is not overwritten"):
        run(order(qata, tmp_path, f"words={tiny_bundle}"))
    assert (tmp_path / f"mmi-unet-fig2.{end}").read_text() == "mine"


@pytest.mark.parametrize(("name", "data"), [("mmi-unet-fig3", "mosmed_plus"), ("sgseg-fig5", "qata_cov19")])
def test_a_missing_root_is_asked_for(name, data, cli, tmp_path):
    result = cli("reproduce", name, "--out", tmp_path)
    assert result.code == 2
    assert f"--root {data}=DIR" in result.err


def test_methods_that_write_their_own_report_stand_beside_those_that_do_not(
    qata, writing_bundle, make_bundle, tmp_path, val
):
    make_bundle(tmp_path / "wordless", reads_text=False)
    methods = [f"{end or 'words'}={writing_bundle}{end}" for end in ("", "@none", "@generated")]
    methods.append(f"U={tmp_path / 'wordless'}")
    assert run(order(qata, tmp_path / "out", *methods, name="sgseg-fig3", cases=(val[0].image_id,))) == 0
    record = json.loads((tmp_path / "out/sgseg-fig3.json").read_text())
    assert [method["text"] for method in record["methods"]] == ["oracle", "none", "generated", "none"]
    dice = record["cases"][0]["dice"]
    assert dice["words"] > dice["@none"] + 0.2, "without a text, it must not write a report either"
    assert dice["@generated"] not in (dice["words"], dice["@none"])


def test_words_that_differ_are_marked():
    first, second = mark(
        "Bilateral infection, two infected areas, lower left lung and upper right lung.",
        "unilateral infection, one infected area, lower left lung",
    )
    assert " ".join(word for word, marked in first if marked) == "Bilateral two areas, and upper right lung."
    assert " ".join(word for word, marked in second if marked) == "unilateral one area,"
    assert not any(marked for side in mark("Lower left lung.", "lower left lung") for _, marked in side)


@pytest.mark.parametrize(("threshold", "zones"), [(0.2, None), (0.0, 63), (1.0, 0)], ids=["right", "all", "nothing"])
def test_reports_stand_beside_captions_and_words_that_differ_are_marked(threshold, zones, shown, make_bundle, tmp_path):
    make_bundle(tmp_path / "writes", zone_thresholds=(threshold,) * 6)
    assert run(order(shown, tmp_path / "out", f"M={tmp_path / 'writes'}", count=2, name="sgseg-fig4")) == 0
    pixels, record = drawn(tmp_path / "out", "sgseg-fig4")
    reports = {sample.image_id: sample.report for sample in open_reader("qata_cov19", shown).samples("val")}
    for case in record["cases"]:
        caption = reports[case["id"]]
        assert (case["convention"], case["caption"]) == ("viewer", caption.text)
        written = caption.zones.index if zones is None else zones
        assert case["zones_viewer"] == {"report": written, "caption": caption.zones.index}
        assert (case["report"] is None) == (zones == 0)
        assert ("six" in case["differs"]["report"]) == (zones == 63)
        assert any(case["differs"].values()) == (zones == 63)
    assert ((pixels == RED).all(2).sum() > 50) == (zones == 63)


def test_attention_lies_where_the_network_looked(shown, writing_bundle, tmp_path):
    assert run(order(shown, tmp_path / "out", f"M={writing_bundle}", count=2, name="sgseg-fig5")) == 0
    pixels, record = drawn(tmp_path / "out", "sgseg-fig5")
    for case in record["cases"]:  # the bundle looks at what is bright, which is the lesion
        assert case["attention_in_truth"] > 2 * case["truth_share"]
    assert pixels.shape[1] == 2 * 16 + 4 * 224 + 3 * 6
    left = 16 + 2 * (224 + 6)
    top = 16 + 19 + 6
    panel = pixels[top : top + 224, left : left + 210].sum(2)
    case = record["cases"][0]
    caption = next(s for s in open_reader("qata_cov19", shown).samples("val") if s.image_id == case["id"]).report.text
    halves = panel[:112, 112:].mean(), panel[112:, :112].mean()  # upper right, lower left of the film
    assert (halves[0] > halves[1]) == ("upper right" in caption)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("sgseg-fig4", ("A={writes}", "B={writes}"), "shows one network"),
        ("sgseg-fig4", ("A={writes}@none",), "shows one network"),
        ("sgseg-fig4", ("A={tiny}",), "writes no report of its own"),
        ("sgseg-fig3", ("A={tiny}@generated",), "writes no report of its own"),
    ],
)
def test_weights_that_a_figure_cannot_show_are_refused(
    name, words, message, shown, writing_bundle, tiny_bundle, tmp_path
):
    models = (word.format(writes=writing_bundle, tiny=tiny_bundle) for word in words)
    with pytest.raises(UsageError, match=message):
        run(order(shown, tmp_path / "out", *models, name=name))
    assert not (tmp_path / "out").exists()
