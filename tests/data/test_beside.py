"""Films of a second data set beside those with masks: how often they come, and what is known of each."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("lightning", reason="textray[train] is not installed")
import torch
from PIL import Image

from textray.augment import Augment
from textray.data.batches import EpochSampler, collate
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError

SIZE = (48, 40)  # of the fake's films
BESIDE = [("a", False)] * 30 + [("a", True)] * 10 + [("b", False)] * 4 + [("b", True)] * 16 + [("c", True)] * 20


@pytest.fixture(autouse=True)
def no_other_pictures(monkeypatch):
    """No picture that is no chest film comes in place of one."""
    monkeypatch.setattr("textray.data.batches._ELSEWHERE", 0.0)


def order(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [index for _, index in sampler]


class TestOrder:
    def test_sources_come_by_size_and_normal_films_as_often_as_sick_ones(self):
        sampler = EpochSampler(288 + len(BESIDE), seed=1, shuffle=True, beside=BESIDE, share=0.25)
        for epoch in range(3):
            found = order(sampler, epoch)
            assert len(found) == len(sampler) == 384
            assert sorted(index for index in found if index < 288) == list(range(288))
            often = Counter(index for index in found if index >= 288)
            counts = Counter(BESIDE[index - 288] for index in often.elements())
            # 96 of them: 48, 24 and 24 by the sizes 40, 20 and 20; c has no normal film to come as often.
            assert counts == {("a", False): 24, ("a", True): 24, ("b", False): 12, ("b", True): 12, ("c", True): 24}
            assert [often[index] for index in range(288 + 40, 288 + 44)] == [3] * 4, "each film of a kind as often"

    @pytest.mark.parametrize("labelled", [None, [index % 3 == 0 for index in range(380)]])
    def test_every_batch_has_its_share(self, labelled):
        sampler = EpochSampler(300 + len(BESIDE), seed=1, shuffle=True, beside=BESIDE, share=0.25, labelled=labelled)
        found = order(sampler, 2)
        for start in range(0, 400, 16):
            batch = found[start : start + 16]
            beside = [BESIDE[index - 300] for index in batch if index >= 300]
            assert 3 <= len(beside) <= 6
            assert {finding for _, finding in beside} == {True, False}
            if labelled:
                assert 3 <= sum(labelled[index] for index in batch if index < 300) <= 5

    def test_it_depends_on_seed_and_epoch_only(self):
        def build(seed=1):
            return EpochSampler(60 + len(BESIDE), seed=seed, shuffle=True, beside=BESIDE, share=0.4)

        first, resumed = build(), build()
        orders = [order(first, epoch) for epoch in range(4)]
        assert order(resumed, 3) == orders[3]
        assert len({tuple(found) for found in orders}) == 4
        assert order(build(seed=2)) != orders[0]
        plain = EpochSampler(60 + len(BESIDE), seed=1, shuffle=False, beside=BESIDE, share=0.4)
        assert list(plain) == [(0, index) for index in range(140)], "a validation sees each once"

    @pytest.mark.parametrize("labelled", [None, [index % 4 == 0 for index in range(50)]])
    def test_without_them_the_order_is_what_it_was(self, labelled):
        sampler = EpochSampler(50, seed=7, shuffle=True, labelled=labelled, share=0.25)
        wanted = np.random.default_rng((7, 3)).permutation(50)
        if labelled is not None:
            first, place = np.array(labelled)[wanted], np.zeros(50)
            for kind in (first, ~first):
                place[kind] = (np.arange(kind.sum()) + 0.5) / kind.sum()
            wanted = wanted[np.argsort(place, kind="stable")]
        assert order(sampler, 3) == wanted.tolist()


@pytest.fixture
def build(qata, films, tmp_path):
    def make(**options):
        settings = {"beside": "chest_films", "beside_root": str(films), "beside_share": 0.25} | options
        settings = {"root": str(qata), "size": SIZE, "augment": "none", "batch_size": 8, "workers": 0} | settings
        data = SegmentationData(cache=str(tmp_path), **settings)
        data.setup("fit")
        return data

    return make


def items(data, split="fit"):
    part = data.sets[split]
    return [(sample, part[0, index]) for index, sample in enumerate(part.samples)]


@pytest.mark.parametrize("split", ["fit", "inner"])
def test_what_is_known_of_each_film(build, split):
    data = build()
    kinds = Counter()
    for sample, item in items(data, split):
        kinds[sample.finding] += 1
        assert item["source"] == sample.source
        if sample.finding is None:  # of the first data set
            assert (item["source"], item["labelled"], item["finding"]) == ("", True, 1.0)
            assert item["mask"].any()
            assert item["lungs"].isnan().all()
            assert not item["denied"].any()
            continue
        assert item["text"] is None
        assert item["finding"] == float(sample.finding)
        assert item["labelled"] is not sample.finding, "that nothing is there is a mask too"
        target = torch.zeros(()) if sample.finding is False else torch.tensor(torch.nan)
        assert torch.equal(item["mask"].nan_to_num(-1), target.nan_to_num(-1).expand(1, *SIZE))
        assert torch.equal(item["zones"].nan_to_num(-1), target.nan_to_num(-1).expand(6))
    assert min(kinds.values()) > 0
    assert len(kinds) == 3


def test_batches_hold_their_share(build):
    data = build()
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 6  # 36 films with masks, and a third as many
    for batch in batches:
        assert sum(map(bool, batch["source"])) in (1, 2, 3)
        assert tuple(batch["lungs"].shape) == (8, 2, 12, 10)
        for known, source in zip(~batch["lungs"].flatten(1).isnan().any(1), batch["source"], strict=True):
            assert bool(known) == (source in ("shenzhen", "montgomery"))
    facts = data.describe()
    assert (facts["beside"], facts["beside_share"]) == ("chest_films", 0.25)
    assert facts["images"]["fit"] == len(data.sets["fit"]) > 48
    few = build(limit=6, beside_share=0.1)
    assert len(list(few.train_dataloader())) == 1, "fewer films than a batch has are one all the same"


def test_a_training_does_not_change_by_where_the_others_stand(build):
    """Films with masks are what they are without others beside them."""
    beside, alone = build(augment="strong"), build(augment="strong", beside=None)
    for index in range(0, 36, 7):
        for name in ("image", "mask", "zones"):
            assert torch.equal(beside.sets["fit"][3, index][name], alone.sets["fit"][3, index][name])


def test_lungs_are_by_image_side_and_swap_with_a_flip(build):
    straight, flipped = build(), build()
    flipped.sets["fit"].augment = Augment(flip_p=1.0)
    for (sample, item), (_, other) in zip(items(straight), items(flipped), strict=True):
        assert torch.equal(other["mask"].nan_to_num(-1), item["mask"].flip(2).nan_to_num(-1))
        if sample.lungs_path is None:
            assert other["lungs"].isnan().all()
            continue
        left, right = item["lungs"]
        assert left.sum() * 16 == 32 * 11
        assert right.sum() * 16 == 32 * 13
        assert not left[:, 5:].any()
        assert not right[:, :5].any()
        assert torch.equal(other["lungs"], torch.stack([right.flip(1), left.flip(1)]))


def test_lungs_move_with_the_picture(build, films):
    """The film is its own mask of lungs, so what is bright in it must be what the two planes say."""
    for path in (films / "lungs").iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        (source,) = films.glob(f"*/{path.stem}.jpg")
        Image.fromarray(pixels).save(source, "PNG")
    data = build()
    data.sets["fit"].augment = Augment(
        geometry_p=1.0, rotate_degrees=15.0, scale=(0.9, 1.2), shift=0.08, border_p=0.5, border=0.2, flip_p=0.5
    )
    shares, sides = [], []
    for sample, item in items(data):
        if sample.lungs_path is None:
            continue
        grey = item["image"][:1]
        bright = torch.nn.functional.avg_pool2d((grey > (grey.min() + grey.max()) / 2).float(), 4)[0] > 0.5
        lungs = item["lungs"] > 0.5
        shares.append(2 * (bright & lungs.any(0)).sum() / (bright.sum() + lungs.any(0).sum()))
        columns = [plane.nonzero()[:, 1].float().mean() for plane in lungs]
        sides.append(columns[0] < columns[1])
    assert np.mean(shares) > 0.95
    assert all(sides)


def test_most_normal_films_are_denied(build):
    data = build(report_denied=0.3)
    found = {True: [], False: [], None: []}
    for epoch in range(4):
        for index, sample in enumerate(data.sets["fit"].samples):
            item = data.sets["fit"][epoch, index]
            found[sample.finding].append(item["denied"].sum().item())
            if sample.finding is False:
                assert not item["mask"].any()
    assert set(found[False]) == {0.0, 6.0}
    assert 0.6 < np.mean(found[False]) / 6 < 0.9
    assert not any(found[True]), "what a sick film shows is not known, so nothing is denied of it"
    assert 0.15 < np.mean(np.array(found[None]) > 0) < 0.45
    batch = collate([data.sets["inner"][0, index] for index in range(len(data.sets["inner"]))])
    assert not batch["denied"].any(), "selection sees the reports as they are"


def test_what_cannot_stand_beside_is_refused(build):
    with pytest.raises(UsageError, match=r"beside_share.*1\.0.*less than 1"):
        build(beside_share=1.0)
    with pytest.raises(UsageError, match=r"phantom does not say which films show a lesion.*chest_films"):
        build(beside="phantom", beside_root=None)


def test_other_pictures_come_in_place_of_films_whose_lungs_are_known(build, monkeypatch):
    monkeypatch.setattr("textray.data.batches._ELSEWHERE", 1.0)
    data = build()
    for index, sample in enumerate(data.sets["fit"].samples):
        item = data.sets["fit"][0, index]
        if sample.lungs_path is None:
            continue
        assert not item["lungs"].any(), "no lungs, and known"
        assert (item["labelled"], item["text"]) == (False, None)
        assert item["mask"].isnan().all()
        assert np.isnan(item["finding"])
        inner = data.sets["fit"].plain()[0, index]
        assert inner["lungs"].any(), "the same film as it is, to select with"
