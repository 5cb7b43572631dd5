"""Captions in two wordings: which one is read, what stands beside it, and that every score names it."""

import json
import shutil

import pytest

from textray.data.base import open_reader
from textray.data.qata_cov19 import QaTaCOV19
from textray.errors import DataError, LayoutError, UsageError
from textray.evaluate.page import data_words
from textray.text.zones import sentence

ALL_LEFT = "Bilateral pulmonary infection, one infected area, all left lung"
UNKNOWN = "bilateral pulmonary infection, two infected areas, all lung and all right lung."


@pytest.fixture
def worded(qata):
    """The fake with original captions beside it: all but three name the whole left lung."""
    for part in ("train", "test"):
        lines = (qata / "prompt" / f"{part}.csv").read_text().splitlines()
        names = [line.split(",")[0] for line in lines[1:]]
        texts = ["", UNKNOWN, "no infection.", *[ALL_LEFT] * len(names)][: len(names)]
        rows = [f'{name},"{text}"' for name, text in zip(names, texts, strict=True)]
        (qata / "prompt" / f"{part}_original.csv").write_text("\n".join([lines[0], *rows]))
    return qata


def zones(sample):
    return sentence(sample.report.zones)


@pytest.mark.parametrize("split", ["val", "test", "fit", "inner"])
def test_wordings_share_their_split_and_differ_in_words(worded, split):
    revised, original, both = (
        open_reader("qata_cov19", worded, captions=name, missing_captions="text-free").samples(split)
        for name in (None, "original", "both")
    )
    ids = [sample.image_id for sample in revised]
    assert ids == [sample.image_id for sample in original] == [sample.image_id for sample in both]
    assert [s.report for s in both] == [s.report for s in revised] != [s.report for s in original]
    for alone, other, sample in zip(revised, original, both, strict=True):
        assert alone.also == other.also == ()
        assert sample.also == ((other.report,) if other.report.zones else ())


def test_a_caption_that_cannot_be_used_is_left_to_the_policy_or_to_the_revised_one(worded, caplog):
    with pytest.raises(DataError, match=r"E_CAPTION_BLANK \(1\), E_CAPTION_WORDS \(1\).*train_original\.csv row 2"):
        QaTaCOV19(worded, captions="original").samples("train")
    assert len(QaTaCOV19(worded, captions="original", missing_captions="skip").samples("train")) == 38
    found = QaTaCOV19(worded, captions="both").samples("train")
    assert [len(sample.also) for sample in found] == [0, 0, 0, *[1] * 37]
    assert all(sample.report.zones for sample in found)
    assert "2 captions of train_original.csv are blank or not understood" in caplog.text


def test_a_copy_without_the_original_table_can_do_without_it(qata):
    assert len(QaTaCOV19(qata).samples("train")) == 40
    assert "original wording" not in " ".join(QaTaCOV19(qata).check().lines())
    for name in ("original", "both"):
        with pytest.raises(LayoutError, match=r"train_original\.csv"):
            QaTaCOV19(qata, captions=name).samples("train")


def test_other_names_are_refused(worded, monuseg):
    with pytest.raises(UsageError, match=r"no captions 'first'. Expected one of revised, original, both"):
        open_reader("qata_cov19", worded, captions="first")
    with pytest.raises(UsageError, match=r"another option: missing_captions"):
        open_reader("qata_cov19", worded, captions="skip")
    with pytest.raises(UsageError, match=r"one wording only"):
        open_reader("monuseg", monuseg, captions="original")


def test_check_counts_both_and_warns_only_of_the_one_that_is_not_read(cli, worded):
    plain = cli("data", "check", "qata_cov19", worded)
    assert plain.code == 0
    # 47 name the whole left lung, which no revised caption does; one denies.
    assert "train captions, original wording: 50, 2 blank or not understood, 48 with other zones" in plain.out
    assert "prompt/train_original.csv: row 3, mask_covid_2.png: has an original caption that is not in" in plain.out
    asked = cli("data", "check", "qata_cov19", worded, "--captions", "original")
    assert (asked.code, "E_CAPTION_WORDS (2)" in asked.out) == (3, True), asked.out


def test_every_score_names_its_wording(cli, worded, tiny_bundle, tmp_path):
    for name, words in ((None, "revised captions"), ("original", "original captions")):
        out = tmp_path / str(name)
        chosen = ["--captions", name, "--missing-captions", "skip"] if name else []
        run = ["evaluate", "--data", "qata_cov19", "--root", worded, "--model", tiny_bundle, "--out", out, *chosen]
        assert cli(*run, "--threads", "1").code == 0
        summary = json.loads((out / "summary.json").read_bytes())
        assert summary["data"]["captions"] == words.split()[0]
        assert ("--captions original" in summary["command"]) is bool(name)
        assert f"qata_cov19 val, {words}" in (out / "summary.md").read_text()
    refused = cli(*run, "--captions", "both")
    assert (refused.code, "Expected one of revised, original" in refused.err) == (2, True), refused.err
    older = {"name": "qata_cov19", "split": "val", "split_by": None}
    assert data_words(older) == "qata_cov19 val"
    assert data_words(older | {"captions": None, "split_by": "slice"}) == "qata_cov19 val (cut by slice)"


def test_scores_of_phrases_name_their_wording(cli, worded, tmp_path):
    out = tmp_path / "out"
    run = ["evaluate", "--task", "grounding", "--floors-only", "--data", "qata_cov19", "--root", worded, "--out", out]
    assert cli(*run, "--captions", "original").code == 3
    assert cli(*run, "--captions", "original", "--missing-captions", "skip").code == 0
    summary = json.loads((out / "summary.json").read_bytes())
    assert summary["data"]["captions"] == "original"
    assert list(summary["wordings"]["most_frequent"]) == [
        sentence(QaTaCOV19(worded, captions="both").samples("val")[0].also[0].zones)
    ]
    assert "qata_cov19 val, original captions, phrases of kind caption" in (out / "summary.md").read_text()


def test_a_grounding_network_learns_from_the_wording_that_is_asked_for(worded):
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    from textray.data.grounding import GroundingData

    data = GroundingData(root=str(worded), captions="original", missing_captions="skip", workers=0, size=(32, 32))
    data.setup("fit")
    assert {s.sentences[-1] for s in data.sets["fit"].studies} == {"all left lung", "no infection"}
    assert data.describe()["wording"] == "original"
    with pytest.raises(UsageError, match="Expected one of revised, original"):
        GroundingData(root=str(worded), captions="both")


def test_a_segmenter_learns_from_both_wordings_in_turn(worded):
    pytest.importorskip("lightning", reason="textray[train] is not installed")
    from textray.data.segmentation import SegmentationData

    found = {}
    for name in (None, "both"):
        data = SegmentationData(root=str(worded), captions=name, workers=0, size=(32, 32), augment="none")
        data.setup("fit")
        assert data.describe()["wording"] == data.settings()["wording"] == (name or "revised")
        found[name] = data.sets["fit"]
    assert found["both"].samples != found[None].samples
    both, revised = found["both"], found[None]
    for index, sample in enumerate(both.samples):
        texts = {both[epoch, index]["text"] for epoch in range(12)}
        assert texts == {sentence(report.zones) for report in (sample.report, *sample.also)}
        assert both[3, index]["text"] == both[3, index]["text"]
        assert both.plain()[3, index]["text"] == revised[3, index]["text"] == zones(sample)
    with pytest.raises(UsageError, match="Expected one of revised, original, both"):
        SegmentationData(root=str(worded), captions="first")


def test_real_wordings(real_qata, tmp_path):
    both = QaTaCOV19(real_qata, captions="both")
    found = [*both.samples("train"), *both.samples("val")]
    differing = [s for s in found if s.also and s.also[0].zones != s.report.zones]
    assert (len(found), sum(not s.also for s in found), len(differing)) == (7145, 5, 901)
    with pytest.raises(DataError, match=r"E_CAPTION_BLANK \(3\).*") as refused:
        QaTaCOV19(real_qata, captions="original").samples("train")
    assert "E_CAPTION_WORDS (2)" in str(refused.value)
    assert "covid_3101" in str(refused.value)
    assert "covid_372.png" in str(refused.value)
    assert len(QaTaCOV19(real_qata, captions="original", missing_captions="skip").samples("train")) == 5716 - 5
    root = tmp_path / "QaTa-COV19-v2"
    shutil.copytree(real_qata / "prompt", root / "prompt")
    (root / "Train Set").symlink_to(real_qata / "Train Set")
    head, *rows = (root / "prompt/train_original.csv").read_text().splitlines()
    (root / "prompt/train_original.csv").write_text("\n".join([head, *reversed(rows)]))
    ids = [s.image_id for s in QaTaCOV19(root, captions="original", missing_captions="skip").samples("val")]
    assert ids == [s.image_id for s in both.samples("val") if s.image_id in set(ids)]
