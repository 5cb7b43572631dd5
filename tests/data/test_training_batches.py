"""What a training is fed: batches of the phantom, drawn from seed, epoch and sample."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch

from textray.augment import Augment, Geometry
from textray.data.base import open_reader
from textray.data.batches import EpochSampler, SegmentationSet, collate, text_of
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.preprocess import Preprocess
from textray.records import Report, Zones
from textray.text.zones import parse_caption


@pytest.fixture(scope="module")
def samples():
    return open_reader("phantom", None, missing_captions="error").samples("train")


@pytest.fixture
def make(samples, tmp_path):
    def build(preset="none", **shares):
        augment = Augment.preset(preset)
        return SegmentationSet(samples, Preprocess(size=(64, 64)), augment=augment, seed=5, cache=tmp_path, **shares)

    return build


def texts(data):
    return [data[0, index]["text"] for index in range(len(data))]


def test_a_batch_has_the_documented_shapes_and_its_key_decides_it(make):
    data, again = make("strong"), make("strong")
    batch = collate([data[0, index] for index in range(3)])
    shapes = [tuple(batch[name].shape) for name in ("image", "mask", "zones")]
    assert shapes == [(3, 3, 64, 64), (3, 1, 64, 64), (3, 6)]
    assert batch["image"].dtype == torch.float32
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert len(batch["text"]) == len(batch["image_id"]) == 3
    assert torch.equal(data[2, 1]["image"], again[2, 1]["image"])
    assert not torch.equal(data[2, 1]["image"], data[3, 1]["image"])


def test_reports_are_withheld_or_whole_and_those_without_words_counted(make, samples):
    whole = [sample.report.text for sample in samples]
    assert texts(make()) == texts(make(labelled=[])) == whole
    wordless = make()
    wordless.samples = [replace(sample, report=Report(zones=Zones())) for sample in samples[:2]] + samples[2:]
    assert (wordless.without_text, make().without_text) == (2, 0)
    assert texts(make(report_dropout=1.0)) == texts(make(report_dropout=1.0, labelled=[])) == [None] * len(samples)


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
    whole, data = make(), make(report_withheld=(1.0, 1.0), report_dropout=1.0)
    cut = 0
    for index, sample in enumerate(samples):
        item, straight = data[0, index], whole[0, index]
        if item["text"] is None:  # one zone only, or nothing of the mask would have been left
            assert torch.equal(item["mask"], straight["mask"])
            continue
        words = parse_caption(item["text"]).zones.present  # kept in spite of the dropout: the mask needs the words
        assert item["zones"].tolist() == [float(z) for z in words]
        assert all(p or not t for p, t in zip(sample.report.zones.present, words, strict=True))
        assert item["mask"].any()
        assert (item["mask"] <= straight["mask"]).all()
        cut += not torch.equal(item["mask"], straight["mask"])
    assert cut > 3


def test_zones_are_denied_and_taken_from_the_mask(make, samples):
    """A cut mask keeps its words, which say why; a flip moves denials as it moves zones."""
    whole, data, flipped = make(), make(report_denied=1.0, report_dropout=1.0), make(report_denied=1.0)
    flipped.augment = Augment(flip_p=1.0)
    cut = 0
    for index, sample in enumerate(samples):
        item, straight, mirrored = data[0, index], whole[0, index], flipped[0, index]
        assert item["denied"].any()
        assert not straight["denied"].any()
        assert (item["mask"] <= straight["mask"]).all()
        if torch.equal(item["mask"], straight["mask"]):
            assert item["text"] is None, "of a whole mask the words can be dropped"
            assert not (item["denied"] * torch.tensor(sample.report.zones.present)).any()
        else:
            cut += 1
            words = parse_caption(item["text"]).zones.present if item["text"] else (False,) * 6
            assert not any(d and w for d, w in zip(item["denied"].tolist(), words, strict=True))
        assert torch.equal(mirrored["mask"], item["mask"].flip(2))
        assert mirrored["denied"].tolist() == [*item["denied"][3:].tolist(), *item["denied"][:3].tolist()]
        if item["text"]:
            assert parse_caption(mirrored["text"]).zones == parse_caption(item["text"]).zones.mirror()
    assert 10 < cut < len(samples)
    assert not data.plain()[0, 0]["denied"].any()


def test_irregular_captions_become_the_sentences_of_the_bank():
    """A bundle knows one sentence for each set of zones, so a training must not learn from others."""
    words = text_of(parse_caption("Unilateral pulmonary infection, one infected area, all left lung"))
    assert words == "unilateral pulmonary infection, three infected areas, upper middle lower left lung."
    assert text_of(parse_caption("No infection")) is None


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_only():
    first, second = EpochSampler(9, seed=1, shuffle=True), EpochSampler(9, seed=1, shuffle=True)
    second.set_epoch(1)
    orders = [[index for _, index in sampler] for sampler in (first, first, second)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(9))
    assert {epoch for epoch, _ in second} == {1}
    assert list(EpochSampler(3, seed=1, shuffle=False)) == [(0, 0), (0, 1), (0, 2)]


def test_learning_and_selecting_share_no_image():
    data = SegmentationData(data="phantom", size=(64, 64), augment="light", report_dropout=1.0, workers=0, batch_size=4)
    data.setup("fit")
    fit, inner = ({sample.image_id for sample in data.sets[name].samples} for name in ("fit", "inner"))
    assert fit
    assert inner
    assert not fit & inner
    selecting = next(iter(data.val_dataloader()))
    assert None not in selecting["text"]  # selection sees whole reports whatever training withholds
    assert data.describe()["images"] == {"fit": len(fit), "inner": len(inner)}
    assert data.describe()["without_text"] == {"fit": 0, "inner": 0}  # as they come; dropout is recorded beside


def test_zones_are_withheld_less_and_less_where_so_configured(make, samples):
    data = make(report_withheld=(1.0, 0.0), epochs=3)
    words = [[data[epoch, index]["text"] for index in range(len(samples))] for epoch in range(3)]
    assert words[2] == [sample.report.text for sample in samples]
    changed = [sum(a != b for a, b in zip(texts, words[2], strict=True)) for texts in words]
    assert changed[0] > changed[1] > 0


def test_masks_that_may_not_be_seen_reach_no_batch(make, samples):
    seen = {sample.image_id for sample in samples[::3]}
    whole, cut = make("strong"), make("strong", report_withheld=(1.0, 1.0))
    data = make("strong", labelled=seen, report_withheld=(1.0, 1.0))
    for index in range(8):
        item, straight = data[0, index], cut[0, index]
        assert item["labelled"] == (index % 3 == 0)
        assert item["index"] == index
        if item["labelled"]:
            assert torch.equal(item["mask"], straight["mask"])
        else:
            assert item["mask"].isnan().all()
            assert torch.equal(item["image"], whole[0, index]["image"])
            assert item["text"] == whole[0, index]["text"]  # to withhold zones needs the mask
    batch = collate([data[0, index] for index in range(3)])
    assert batch["labelled"].tolist() == [True, False, False]
    assert batch["index"].tolist() == [0, 1, 2]
    plain = data.plain()[0, 1]
    assert plain["text"] == samples[1].report.text
    assert plain["geometry"] == Geometry()


def test_every_batch_holds_its_share_of_labelled_samples():
    labelled = [index < 4 for index in range(16)]
    sampler = EpochSampler(16, seed=1, shuffle=True, labelled=labelled)
    order = [index for _, index in sampler]
    assert sorted(order) == list(range(16))
    for start in range(0, 16, 4):
        assert sum(labelled[index] for index in order[start : start + 4]) == 1
    sampler.set_epoch(1)
    assert [index for _, index in sampler] != order
    plain = EpochSampler(16, seed=1, shuffle=True)
    assert list(EpochSampler(16, seed=1, shuffle=True, labelled=[True] * 16)) == list(plain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"augment": "strong"},
        {"augment": "paper", "report_withheld": 0.1},
        {"augment": "paper", "report_denied": 0.1},
    ],
)
def test_transposed_films_refuse_what_must_know_left_from_right(wrong):
    data = SegmentationData(data="phantom", transpose=True, interpolation="bicubic", augment="paper")
    assert (data.preprocess.transpose, data.preprocess.interpolation) == (True, "bicubic")
    assert data.describe()["preprocess"] == data.preprocess.to_dict()
    with pytest.raises(UsageError, match="left and right in their rows"):
        SegmentationData(data="phantom", transpose=True, **wrong)


def test_a_share_of_the_patients_has_masks():
    """A task without a use for the others sees the labelled ones only, the very images of `train_fraction`."""

    def ids(learns_unlabelled=False, **shares):
        data = SegmentationData(data="phantom", size=(32, 32), workers=0, **shares)
        task = SimpleNamespace(learns_unlabelled=learns_unlabelled)
        data.trainer = SimpleNamespace(max_epochs=1, lightning_module=task)
        data.setup("fit")
        fit = data.sets["fit"]
        labelled = {s.image_id for s, seen in zip(fit.samples, fit.labelled, strict=True) if seen}
        assert data.describe()["labelled"]["images"] == len(labelled)
        assert all(data.sets["inner"].labelled)
        return {s.image_id for s in fit.samples}, labelled

    share = ids(labelled_fraction=0.25)
    assert share[0] == share[1] == ids(train_fraction=0.25)[0]
    everything, labelled = ids(learns_unlabelled=True, labelled_fraction=0.25)
    assert labelled == share[0]
    assert everything == ids()[0] > labelled
    assert labelled < ids(learns_unlabelled=True, labelled_fraction=0.5)[1]
