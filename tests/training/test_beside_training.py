"""Training with films of a second data set, denied zones and several wordings: what is learnt, logged and kept."""

import csv
import shutil
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from PIL import Image
from sklearn.metrics import roc_auc_score

from textray.data.batches import collate
from textray.data.phantom import draw
from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.base import Network, Output
from textray.models.baselines.unet import UNet, UNetConfig
from textray.models.self_guided import Located, Locator, SelfGuided
from textray.records import Zones
from textray.training.segmentation import SegmentationTask
from textray.training.self_guided import (
    CLEAR_ALARM,
    FALSE_ALARM,
    SENSITIVITY,
    OwnReports,
    Row,
    choose_bounds,
    f1,
)

TOKENS, SIZE = 24, (32, 32)
METRICS = "inner/presence_auc", "inner/healthy_marked", "inner/lungs_dice"


@dataclass(frozen=True)
class NoConfig:
    pass


class Spots(Locator):
    """Six numbers from the means of two convolutions, one of them depthwise."""

    def __init__(self):
        super().__init__(size_multiple=4, width=4)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 6)

    def load_pretrained(self):
        pass

    def forward(self, image):
        features = self.trunk(image).mean((2, 3))
        return Located(self.head(features), None, features)


class Shift(Network):
    """A convolution, moved up or down by the mean of what is read, and the lungs."""

    tells_lungs = True

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=4, text_width=32, most_tokens=TOKENS + 6)
        self.config = NoConfig()
        self.trunk, self.lungs = nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(3, 2, 4, stride=4)
        self.read = nn.Linear(32, 1)

    def load_pretrained(self):
        pass

    def forward(self, image, text_features=None, text_mask=None):
        features, mask = self.read_text(image, text_features, text_mask)
        mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Output(self.trunk(image) + self.read(mean)[..., None, None], lungs=self.lungs(image))


class Guided(SelfGuided):
    def __init__(self, **options):
        options = {"presence": True, "denial": True} | options
        super().__init__(Spots(), Shift(), tokens=TOKENS, zone_tokens=False, **options)
        self.config = NoConfig()
        self.given = []

    def forward(self, image, text_features=None, text_mask=None, denied=None, located=None):
        self.given.append((self.training, text_mask, denied))
        return super().forward(image, text_features, text_mask, denied, located)


def task(network=None, **settings):
    torch.manual_seed(0)
    settings = {"text_encoder": "tiny", "max_tokens": TOKENS, "lr": 1e-2, "zone_weight": 1.0} | settings
    return SegmentationTask(network or Guided(), **settings)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """48 films of each of two places, half of them normal; in the second one lungs are known, and films are darker."""
    root, rows = tmp_path_factory.mktemp("films"), [("file", "source", "label", "lungs")]
    lungs = np.zeros((48, 61), bool)
    lungs[8:40, 8:24] = lungs[8:38, 36:54] = True
    for index in range(96):
        source, normal = "ab"[index // 48], index % 2 == 0
        pixels, *_ = draw(index, (48, 61), Zones() if normal else None)
        file, mask = f"{source}/{index:03d}.png", f"lungs/{index:03d}.png" if source == "b" else ""
        for folder in (source, "lungs"):
            (root / folder).mkdir(exist_ok=True)
        Image.fromarray(np.rint(pixels * (255 - 100 * bool(mask))).astype(np.uint8)).save(root / file)
        if mask:
            Image.fromarray(lungs).save(root / mask)
        rows.append((file, source, "normal" if normal else "sick", mask))
    with (root / "films.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return root


@pytest.fixture
def fit(drawn_qata, films, tmp_path):
    """Train; return the trainer. ``best.ckpt`` and ``last.ckpt`` are in ``tmp_path / folder``."""

    def train(module, epochs=1, folder="run", *, resume=None, more=(), precision=None, **settings):
        out = tmp_path / folder
        monitor = "inner/dice_none" if module.segment else "inner/presence_auc"
        best = ModelCheckpoint(dirpath=out, filename="best", monitor=monitor, mode="max")
        last = ModelCheckpoint(dirpath=out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        beside = {"beside": "chest_films", "beside_root": str(films), "beside_share": 0.4}
        settings = {"root": str(drawn_qata), "batch_size": 10, "report_denied": 0.3} | beside | settings
        data = SegmentationData(size=SIZE, workers=0, cache=str(tmp_path / "cache"), **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on workers
            trainer = Trainer(
                max_epochs=epochs, logger=False, callbacks=[*more, best, last], enable_progress_bar=False,
                enable_model_summary=False, accelerator="cpu", log_every_n_steps=1, precision=precision,
            )  # fmt: skip
            trainer.fit(module, datamodule=data, ckpt_path=resume)
        return trainer

    return train


def logged(trainer):
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def inner(trainer):
    data = trainer.datamodule.sets["inner"]
    return collate([data[0, index] for index in range(len(data))])


def test_what_is_logged_is_of_each_data_set_apart(fit):
    module = task(presence_weight=0.5, lung_weight=0.3)
    trainer = fit(module)
    found, batch = logged(trainer), inner(trainer)
    module.eval()
    assert {"train/presence", "train/lungs", "train/zones", *METRICS} <= set(found)
    beside = torch.tensor([bool(source) for source in batch["source"]])
    with torch.no_grad():
        output = module(batch["image"], [None] * len(beside), torch.ones(len(beside), dtype=torch.bool))
    lesion, truth = output.logits > 0, batch["mask"] > 0.5
    hits, sizes = (lesion & truth)[~beside].sum(), lesion[~beside].sum() + truth[~beside].sum()
    assert found["inner/dice_none"] == pytest.approx(float(2 * hits / sizes))
    assert found["inner/healthy_marked"] == lesion[batch["finding"] == 0].flatten(1).any(1).float().mean()
    known = torch.tensor([source == "b" for source in batch["source"]])
    lungs, drawn = output.lungs[known] > 0, batch["lungs"][known] > 0.5
    assert found["inner/lungs_dice"] == pytest.approx(float(2 * (lungs & drawn).sum() / (lungs.sum() + drawn.sum())))
    presence = output.presence[:, 0].numpy()
    places = [np.array([source == place for source in batch["source"]]) for place in "ab"]
    scores = [
        roc_auc_score(batch["finding"][place], presence[place])
        for place in places
        if len(batch["finding"][place].unique()) == 2
    ]
    assert found["inner/presence_auc"] == pytest.approx(np.mean(scores))
    assert module.learns_empty


def told(network, values, sources, findings):
    """A batch whose films a network finds ``values`` of presence in."""
    with torch.no_grad():
        network.presence.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        network.presence.bias.zero_()
    features = torch.zeros(len(values), 4)
    features[:, 0] = torch.tensor(values)
    network.locator.forward = lambda image: Located(torch.zeros(len(values), 6), None, features)
    return {
        "image": torch.zeros(len(values), 3, 8, 8), "zones": torch.zeros(len(values), 6), "source": sources,
        "finding": torch.tensor(findings), "image_id": [str(index) for index in range(len(values))],
    }  # fmt: skip


def test_presence_is_scored_within_each_source():
    """That all films of one place score higher than all of another says nothing about lesions."""
    reports = OwnReports(Guided())
    values = [0.1, 0.2, 0.3, 0.4, 9.0, 8.0, 7.0, 0.0, 5.0]
    sources, findings = [*"aaaabbb", "", "c"], [0.0, 1, 0, 1, 1, 0, torch.nan, 1, 1]
    with torch.no_grad():
        reports.locate(told(reports.network, values, sources, findings))
    assert reports.scores()["presence_auc"] == pytest.approx((3 / 4 + 1) / 2)
    silent = OwnReports(Guided(presence=False))
    batch = told(reports.network, values, sources, findings)
    silent.network.locator.forward = reports.network.locator.forward
    with torch.no_grad():
        silent.locate(batch)
    assert "presence_auc" not in silent.scores()


def test_one_unknown_zone_leaves_the_others_of_a_film_in_the_scores():
    """Also where no film has all of its zones known."""
    reports = OwnReports(Guided())
    truth = torch.tensor([[torch.nan, 1, 0, 0, 0, 0], [1, torch.nan, 0, 0, 0, 0], [0, 0, torch.nan, 0, 0, 1]])
    batch = told(reports.network, [0.0] * 3, [""] * 3, [1.0] * 3) | {"zones": truth}
    said = torch.tensor([[9.0, 9, -9, -9, -9, -9], [9, 9, -9, -9, -9, -9], [-9, -9, -9, -9, -9, -9]])
    reports.network.locator.forward = lambda image: Located(said, None, torch.zeros(3, 4))
    with torch.no_grad():
        reports.locate(batch)
    # Five zones are right on the films that know them, and one is missed.
    assert reports.scores() == {"zones_f1": pytest.approx(5 / 6), "sentence_share": pytest.approx(2 / 3)}


def test_the_threshold_of_presence_keeps_the_sick_films_of_the_first_data_set():
    reports, values = OwnReports(Guided()), np.random.default_rng(0).normal(size=100).tolist()
    sources, findings = [*[""] * 100, "a", "a", ""], [*[1.0] * 101, 0.0, torch.nan]
    with torch.no_grad():
        reports.choose_thresholds([told(reports.network, [*values, -9.0, -9.0, -9.0], sources, findings)])
    kept = torch.sigmoid(torch.tensor(values)) >= reports.network.bounds[0]
    assert kept.sum() == 98, "at most 2.5 of 100 may be lost, and a threshold is one film's value"


def test_bounds_of_words_are_shares_of_films_that_they_rightly_describe():
    rng = np.random.default_rng(1)
    sick = [Row(rng.random(6), (rng.random(6) < 0.4).astype(np.float32), p, 1.0, "") for p in rng.random(400)]
    normal = [Row(rng.random(6), np.zeros(6, np.float32), p, 0.0, "a") for p in rng.random(300) * 0.6]
    elsewhere = [Row(rng.random(6), np.full(6, np.nan, np.float32), p, np.nan, "a") for p in rng.random(50)]
    threshold, clear, free, ill = choose_bounds([*sick, *normal, *elsewhere])
    assert np.mean([row.presence >= threshold for row in sick]) == pytest.approx(SENSITIVITY, abs=0.005)
    assert np.mean([row.presence > clear for row in normal]) == pytest.approx(CLEAR_ALARM, abs=0.005)
    named, unnamed = (np.concatenate([row.zones[row.truth == kind] for row in sick]) for kind in (1, 0))
    assert np.mean(named < free) == pytest.approx(FALSE_ALARM / 6, abs=0.002)
    assert np.mean(unnamed > ill) == pytest.approx(FALSE_ALARM / 6, abs=0.002)
    assert choose_bounds([]) == (0.5, 0.5, 0.0, 1.0)
    assert choose_bounds(normal)[0] == 0.5, "without sick films of the first data set nothing says where to put it"
    assert choose_bounds(sick)[1] == choose_bounds(sick)[0]


def test_the_locator_alone_learns_presence(fit):
    module = task(segment=False, presence_weight=0.5)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    trainer = fit(module)
    zones = {"inner/loss", "inner/zones_f1", "inner/sentence_share"}
    assert set(logged(trainer)) == {"train/loss", "train/presence", "inner/presence_auc", *zones}
    changed = {name for name, value in module.network.state_dict().items() if not torch.equal(before[name], value)}
    assert {"locator.head.weight", "presence.weight", "bounds", "thresholds"} <= changed
    assert not {name for name in changed if name.startswith(("segmenter.", "zone_denied"))}


def test_denials_are_read_in_training_and_nothing_is_written_over_them(fit):
    batches = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            batches.append(batch)

    module = task(self_guided=1.0)
    fit(module, more=[Keep()], report_dropout=0.5, augment="strong")
    seen = [(mask, denied) for training, mask, denied in module.network.given if training]
    silent = 0
    for batch, (mask, denied) in zip(batches, seen, strict=True):
        assert torch.equal(denied, batch["denied"])
        without = torch.tensor([text is None for text in batch["text"]])
        silenced = without & batch["denied"].any(1)
        assert (mask[silenced] == -1).all()
        assert (mask[without & ~silenced] == 0).all()
        silent += int(silenced.sum())
    assert silent > 3
    heard = [denied for training, _, denied in module.network.given if not training and denied is not None]
    assert heard, "selection tells what the reports deny"
    assert not any(denied.any() for denied in heard), "and these deny nothing"


def test_empty_masks_have_no_dice_where_they_are_meant(fit):
    module = task()
    logits, labelled = torch.randn(3, 1, 8, 8), torch.tensor([True, True, False])
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, 0, :4], mask[2] = 1, torch.nan
    batch = {"labelled": labelled, "mask": mask}
    assert torch.equal(module.mask_loss(logits, batch), module.loss(logits[:2], mask[:2]))
    module.learns_empty = True
    wanted = module.loss(logits[:2], mask[:2], torch.tensor([True, False]))
    assert torch.equal(module.mask_loss(logits, batch), wanted)
    assert module.mask_loss(logits, batch | {"labelled": torch.zeros(3, dtype=torch.bool)}) == 0
    plain = task(Guided(denial=False))
    fit(plain, beside=None, report_denied=0.0)
    assert not plain.learns_empty


def test_a_resumed_training_is_the_uninterrupted_one(fit, tmp_path):
    settings = {"report_dropout": 0.4, "augment": "hospitals"}
    whole = fit(task(presence_weight=0.5, lung_weight=0.3), 2, "whole", **settings)
    stop = type("Stop", (Callback,), {"on_train_epoch_end": lambda self, t, m: setattr(t, "should_stop", True)})()
    fit(task(presence_weight=0.5, lung_weight=0.3), 2, "cut", more=[stop], **settings)
    rest = fit(task(presence_weight=0.5, lung_weight=0.3), 2, "rest", resume=tmp_path / "cut/last.ckpt", **settings)
    one, other = whole.lightning_module.state_dict(), rest.lightning_module.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, msg=name)
    assert [logged(rest)[name] for name in METRICS] == [logged(whole)[name] for name in METRICS]


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ({}, {"report_denied": 0.5}, r"data\.report_denied 0\.5\. Expected data\.report_denied 0\.3"),
        ({"report_denied": 0.0}, {"report_denied": 0.3}, r"Expected data\.report_denied 0\.0"),
        ({}, {"beside_share": 0.3}, r"data\.beside_share 0\.3\. Expected data\.beside_share 0\.4"),
        ({"beside": None}, {}, r'data\.beside "chest_films"'),
        ({}, {"beside": None}, r"data\.beside null"),
        ({}, {"captions": "original"}, r'data\.wording "original"'),
    ],
    ids=str,
)
def test_a_training_resumes_with_the_same_films_denials_and_wording_only(fit, tmp_path, drawn_qata, before, now, says):
    root = shutil.copytree(drawn_qata, tmp_path / "QaTa-COV19-v2")
    for part in ("train", "test"):
        shutil.copy(root / "prompt" / f"{part}.csv", root / "prompt" / f"{part}_original.csv")
    settings = {"root": str(root), "limit": 8, "batch_size": 4}
    data = fit(task(), **settings | before).datamodule
    kept = torch.load(tmp_path / "run/last.ckpt", weights_only=True)["textray"]["data"]
    assert (kept["report_denied"], kept["beside"]) == (data.report_denied, data.beside)
    with pytest.raises(UsageError, match=says):
        fit(task(), 2, "again", resume=tmp_path / "run/last.ckpt", **settings | now)


def test_a_running_mean_is_what_is_scored_and_kept(fit, tmp_path):
    """Zones are scored with the thresholds of the mean, which the checkpoint holds."""
    steps = []

    class Follow(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            steps.append(module.network.segmenter.trunk.weight.detach().clone())

    trainer = fit(task(), 2, more=[Follow(), EMAWeightAveraging(decay=0.5)])
    wanted = steps[0]
    for weight in steps[1:]:
        wanted = 0.5 * wanted + 0.5 * weight
    again = task()
    again.load_state_dict(torch.load(tmp_path / "run/last.ckpt", weights_only=True)["state_dict"])
    network, batch = again.network.eval(), inner(trainer)
    torch.testing.assert_close(network.segmenter.trunk.weight, wanted)
    with torch.no_grad():
        written = torch.sigmoid(network.locator(batch["image"]).zone_logits) >= network.thresholds
    truth = batch["zones"][(known := ~batch["zones"].isnan().any(1))] > 0.5
    assert not torch.equal(network.thresholds, torch.full((6,), 0.5))
    assert logged(trainer)["inner/zones_f1"] == pytest.approx(f1(written[known].numpy(), truth.numpy()).mean())


def test_half_precision_trains_too(fit):
    trainer = fit(task(presence_weight=0.5, lung_weight=0.3), precision="bf16-mixed")
    assert all(np.isfinite(value) for value in logged(trainer).values())
    network = trainer.lightning_module.network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert "forward" in vars(network.locator.trunk[1]), "its depthwise layers are single"


def test_weights_without_an_output_are_refused():
    with pytest.raises(UsageError, match=r"presence_weight needs a network.*presence: true"):
        task(Guided(presence=False), presence_weight=0.5)
    with pytest.raises(UsageError, match=r"lung_weight needs a network.*lungs: true"):
        task(UNet(UNetConfig(width=4)), text_encoder=None, zone_weight=0.0, lung_weight=0.5)


def test_denials_need_a_network_that_reads_them(fit):
    with pytest.raises(UsageError, match=r"does not read what a report denies.*report_denied 0\.3"):
        fit(task(Guided(denial=False)))
