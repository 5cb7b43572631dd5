"""What a training is fed: batches of the phantom, drawn from seed, epoch and sample."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from textray.augment import Augment
from textray.data.base import open_reader
from textray.data.module import EpochSampler, SegmentationData, SegmentationSet, collate
from textray.preprocess import Preprocess
from textray.text.report import parse_caption


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield open_reader("phantom", None, captions="error").samples("train")


@pytest.fixture
def make(samples, tmp_path):
    def build(**shares):
        preset = shares.pop("augment", "none")
        return SegmentationSet(
            samples, Preprocess(size=(64, 64)), augment=Augment.preset(preset), seed=5, cache=tmp_path, **shares
        )

    return build


def texts(data):
    return [data[0, index]["text"] for index in range(len(data))]


def test_a_batch_has_the_documented_shapes(make):
    data = make(augment="strong")
    batch = collate([data[0, index] for index in range(3)])
    assert batch["image"].shape == (3, 3, 64, 64)
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].shape == (3, 1, 64, 64)
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert batch["zones"].shape == (3, 6)
    assert len(batch["text"]) == len(batch["image_id"]) == 3


def test_the_same_key_gives_the_same_sample_and_another_epoch_another(make):
    data = make(augment="strong")
    again = make(augment="strong")
    assert torch.equal(data[2, 1]["image"], again[2, 1]["image"])
    assert not torch.equal(data[2, 1]["image"], data[3, 1]["image"])


def test_reports_are_withheld_shortened_or_whole(make, samples):
    assert texts(make()) == [sample.report.text for sample in samples]
    assert texts(make(report_dropout=1.0)) == [None] * len(samples)
    for sample, text in zip(samples, texts(make(report_partial=1.0)), strict=True):
        told, whole = parse_caption(text).zones.present, sample.report.zones.present
        assert all(w or not t for t, w in zip(told, whole, strict=True))
        assert sum(told) < sum(whole) or sum(whole) == 1


def test_words_flip_with_the_picture(make, samples):
    data = make()
    data.augment = Augment(flip_p=1.0)
    for index, sample in enumerate(samples[:6]):
        item = data[0, index]
        assert parse_caption(item["text"]).zones == sample.report.zones.mirror()
        straight = make()[0, index]
        assert torch.equal(item["mask"], straight["mask"].flip(2))
        assert item["zones"].tolist() == [float(z) for z in sample.report.zones.mirror().present]


def test_zones_are_withheld_from_words_and_mask_together(make, samples):
    whole, data = make(), make(report_withheld=1.0, report_dropout=1.0)
    cut = 0
    for index, sample in enumerate(samples):
        item, straight = data[0, index], whole[0, index]
        if item["text"] is None:  # one zone only, or nothing of the mask would have been left
            assert torch.equal(item["mask"], straight["mask"])
            continue
        told = parse_caption(item["text"]).zones.present  # told in spite of the dropout: the mask needs the words
        assert item["zones"].tolist() == [float(z) for z in told]
        assert all(p or not t for p, t in zip(sample.report.zones.present, told, strict=True))
        assert item["mask"].any()
        assert (item["mask"] <= straight["mask"]).all()
        cut += not torch.equal(item["mask"], straight["mask"])
    assert cut > 3


def test_no_infection_is_no_report(make):
    data = make()
    for words in ("no infection.", "No infection"):
        assert data._words(parse_caption(words), np.random.default_rng(0)) is None


def test_irregular_captions_are_told_in_the_words_of_use(make):
    """A bundle knows one sentence for each set of zones, so a training must not learn from others."""
    irregular = parse_caption("Unilateral pulmonary infection, one infected area, all left lung")
    told = make()._words(irregular, np.random.default_rng(0))
    assert told == "unilateral pulmonary infection, three infected areas, upper middle lower left lung."


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_only():
    first, second = EpochSampler(9, seed=1, shuffle=True), EpochSampler(9, seed=1, shuffle=True)
    second.set_epoch(1)
    orders = [[index for _, index in sampler] for sampler in (first, first, second)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(9))
    assert {epoch for epoch, _ in second} == {1}
    assert list(EpochSampler(3, seed=1, shuffle=False)) == [(0, 0), (0, 1), (0, 2)]


def test_learning_and_selecting_share_no_image(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTRAY_CACHE", str(tmp_path))
    data = SegmentationData(data="phantom", size=(64, 64), augment="light", report_dropout=1.0, workers=0, batch_size=4)
    data.setup("fit")
    fit, inner = ({sample.image_id for sample in data.sets[name].samples} for name in ("fit", "inner"))
    assert fit
    assert inner
    assert not fit & inner
    selecting = next(iter(data.val_dataloader()))
    assert None not in selecting["text"]  # selection sees whole reports whatever training withholds
    assert data.describe()["images"] == {"fit": len(fit), "inner": len(inner)}


def test_zones_are_withheld_less_and_less_where_so_configured(make, samples):
    data = make(report_withheld=(1.0, 0.0), epochs=3)
    told = [[data[epoch, index]["text"] for index in range(len(samples))] for epoch in range(3)]
    assert told[2] == [sample.report.text for sample in samples]
    changed = [sum(a != b for a, b in zip(texts, told[2], strict=True)) for texts in told]
    assert changed[0] > changed[1] > 0
    assert [data._withheld(epoch) for epoch in (0, 1, 2, 9)] == [1.0, 0.5, 0.0, 0.0]
