"""Training of a network that writes its own reports: which it sees, what selects, what starts it, what is kept."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file

from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.inference import bundle
from textray.models.base import Network, Output
from textray.models.baselines.unet import UNet, UNetConfig
from textray.models.self_guided import Located, Locator, SelfGuided
from textray.text.zones import sentence
from textray.training.checkpoints import begin, named_parts, read_checkpoint
from textray.training.segmentation import SegmentationTask

TOKENS = 16


@dataclass(frozen=True)
class NoConfig:
    pass


class Spots(Locator):
    """Six numbers from the mean of a convolution."""

    def __init__(self):
        super().__init__(size_multiple=4, width=4)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4))
        self.head, self.images = nn.Linear(4, 6), 0

    def load_pretrained(self):
        nn.init.constant_(self.trunk[0].bias, 7.0)

    def forward(self, image):
        self.images += len(image)
        features = self.trunk(image).mean((2, 3))
        return Located(self.head(features), None, features)


class Shift(Network):
    """A convolution, moved up or down by the mean of the report's tokens."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=4, text_width=32, most_tokens=TOKENS)
        self.config = NoConfig()
        self.trunk, self.read = nn.Conv2d(3, 1, 3, padding=1), nn.Linear(32, 1)
        self.masks = []

    def load_pretrained(self):
        nn.init.constant_(self.trunk.bias, 7.0)

    def forward(self, image, text_features=None, text_mask=None):
        self.masks.append(text_mask.clone())
        features, mask = self.read_text(image, text_features, text_mask)
        mean = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Output(self.trunk(image) + self.read(mean)[..., None, None])


class Guided(SelfGuided):
    def __init__(self):
        super().__init__(Spots(), Shift(), tokens=TOKENS, zone_tokens=False)
        self.config = NoConfig()
        self.given = []

    def forward(self, image, text_features=None, text_mask=None, denied=None, located=None):
        self.given.append((self.training, text_features, text_mask))
        return super().forward(image, text_features, text_mask, denied, located)


def task(network=None, **settings):
    torch.manual_seed(0)
    settings = {"text_encoder": "tiny", "max_tokens": TOKENS, "lr": 1e-2, "zone_weight": 1.0} | settings
    return SegmentationTask(network or Guided(), **settings)


def data(tmp_path, **settings):
    settings = {"size": (32, 32), "batch_size": 4, "workers": 0, "limit": 8} | settings
    return SegmentationData("phantom", cache=str(tmp_path / "cache"), **settings)


def fit(module, tmp_path, epochs=1, folder="run", resume=None, more=(), **settings):
    """Train; return trainer and the folder of ``best.ckpt`` and ``last.ckpt``."""
    out = tmp_path / folder
    best = ModelCheckpoint(
        dirpath=out, filename="best", monitor="inner/dice" if module.segment else "inner/zones_f1", mode="max"
    )
    last = ModelCheckpoint(dirpath=out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = Trainer(
            max_epochs=epochs, logger=False, callbacks=[best, last, *more], enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(module, datamodule=data(tmp_path, **settings), ckpt_path=resume)
    return trainer, out


def rows(module, share, seed=0):
    """Rows of text_mask that a training step gives the network for 40 images, every other one with a report."""
    module.self_guided = share
    torch.manual_seed(seed)
    texts = ["left upper lung", None] * 20
    batch = {
        "image": torch.zeros(40, 3, 8, 8), "mask": torch.zeros(40, 1, 8, 8), "zones": torch.zeros(40, 6),
        "text": texts, "image_id": list("x" * 40), "labelled": torch.ones(40, dtype=torch.bool),
        "denied": torch.zeros(40, 6),
    }  # fmt: skip
    module.log = lambda *_, **__: None
    module.training_step(batch, 0)
    mask = module.network.given[-1][2]
    assert (mask[::2] > 0).any(1).all()  # a given report is read as it is, whatever the share
    assert (mask[::2] >= 0).all()
    assert (mask[1::2] == mask[1::2, :1]).all()
    return mask[1::2, 0]


def test_samples_without_a_report_are_given_their_own_or_none():
    module = task()
    assert (rows(module, 0.0) == -1).all()
    assert module.network.locator.images == 40  # one pass for each image
    assert (rows(module, 1.0) == 0).all()
    some = rows(module, 0.5)
    assert 3 < (some == 0).sum() < 17
    assert torch.equal(rows(module, 0.5), some)  # the seed of the batch decides, and nothing before it
    assert not torch.equal(rows(module, 0.5, seed=1), some)


def test_the_score_that_selects_is_of_validation_with_generated_reports(tmp_path):
    module = task()
    network = module.network

    class Spy(Callback):
        def on_train_batch_end(self, trainer, *_):
            logged.update(trainer.logged_metrics)

    logged = {}
    steps = []
    validate = module.validation_step
    module.validation_step = lambda batch, batch_idx: (steps.append(len(network.given)), validate(batch, batch_idx))[1]
    trainer, out = fit(module, tmp_path, more=[Spy()])
    assert "inner/dice" not in logged  # no training step and no training text enters it
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found["inner/dice"] == found["inner/dice_generated"]
    mean = sum(found[f"inner/dice_{route}"] for route in ("generated", "oracle", "none")) / 3
    assert found["inner/dice_mean"] == pytest.approx(mean)
    assert {"inner/zones_f1", "inner/sentence_share", "train/zones"} <= set(found)
    # What each validation batch was given: nothing (write your own), the data set's reports, nothing at all.
    for start in steps:
        for (training, features, mask), kind in zip(network.given[start : start + 3], "gon", strict=True):
            assert not training
            if kind == "o":
                assert (mask > 0).any()
            else:
                assert not features.any()
                assert (mask == (0 if kind == "g" else -1)).all()
    # The best checkpoint is of that score, with the thresholds that it was measured with.
    assert float(trainer.checkpoint_callbacks[0].best_model_score) == pytest.approx(found["inner/dice_generated"])
    again = task()
    again.load_state_dict(torch.load(out / "best.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(again.network.thresholds, network.thresholds)
    assert not torch.equal(network.thresholds, torch.full((6,), 0.5))


def test_the_bank_is_the_encoders_and_thresholds_are_chosen_before_they_are_used(tmp_path, monkeypatch):
    from textray.text.zones import bank_sentences
    from textray.training import self_guided

    module, order = task(), []
    choose, step = self_guided.choose_thresholds, module.validation_step
    monkeypatch.setattr(self_guided, "choose_thresholds", lambda *a: (order.append(a[0].shape), choose(*a))[1])
    module.validation_step = lambda batch, batch_idx: (order.append("step"), step(batch, batch_idx))[1]
    fit(module, tmp_path, batch_size=1)
    assert order == ["step"] * 2 + [(3, 6)] + ["step"] * 3  # not by the trial at the start
    features, mask = module.encoder(bank_sentences())
    assert torch.equal(module.network.bank_features, features)
    assert torch.equal(module.network.bank_mask, mask)


@pytest.mark.parametrize("segment", [True, False])
def test_a_validation_shows_each_image_to_the_locator_once(tmp_path, segment):
    starts, ends = [], []

    class LocatedImages(Callback):
        def on_validation_epoch_start(self, trainer, module):
            starts.append(module.network.locator.images)

        def on_validation_epoch_end(self, trainer, module):
            ends.append(module.network.locator.images)

    trainer, _ = fit(task(segment=segment), tmp_path, 2, more=[LocatedImages()], batch_size=2)
    seen = [end - start for start, end in zip(starts, ends, strict=True)]
    assert seen == [len(trainer.datamodule.sets["inner"])] * 3 == [3] * 3  # of the trial at the start, too


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    settings = {"report_dropout": 0.6}
    whole, _ = fit(task(self_guided=0.5), tmp_path, 2, "whole", **settings)
    # Stopped after the first of two epochs, whose schedule it must keep.
    stop = type("Stop", (Callback,), {"on_train_epoch_end": lambda self, t, m: setattr(t, "should_stop", True)})()
    _, out = fit(task(self_guided=0.5), tmp_path, 2, "cut", more=[stop], **settings)
    assert torch.load(out / "last.ckpt", weights_only=True)["textray"]["self_guided"] == 0.5
    torch.manual_seed(99)
    rest, _ = fit(task(self_guided=0.5), tmp_path, 2, "rest", out / "last.ckpt", **settings)
    one, other = whole.lightning_module.state_dict(), rest.lightning_module.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, msg=name)
    assert rest.callback_metrics["inner/dice"] == whole.callback_metrics["inner/dice"]


def test_another_encoders_sentences_are_refused(tmp_path):
    _, out = fit(task(), tmp_path)
    checkpoint = torch.load(out / "last.ckpt", weights_only=True)
    checkpoint["state_dict"]["network.bank_features"] += 0.5
    torch.save(checkpoint, out / "other.ckpt")
    with pytest.raises(UsageError, match=r"another text encoder.*tiny"):
        fit(task(), tmp_path, 2, "again", out / "other.ckpt")
    with pytest.raises(UsageError, match=r"another text encoder.*tiny"):
        fit(task(initial=str(out / "other.ckpt")), tmp_path, 1, "third")


def test_the_locator_alone_learns_zones_without_a_segmenter_pass(tmp_path, stages):
    """No bundle is exported from such a network, unless the segmenter comes from an earlier training."""
    module = task(segment=False)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    trainer, out = fit(module, tmp_path)
    assert module.network.segmenter.masks == []
    assert set(trainer.callback_metrics) == {"train/loss", "inner/loss", "inner/zones_f1", "inner/sentence_share"}
    last = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
    changed = {name for name, value in before.items() if not torch.equal(last[f"network.{name}"], value)}
    assert {"locator.head.weight", "thresholds", "bank_features"} <= changed
    assert not {name for name in changed if name.startswith("segmenter.") and name != "segmenter.trunk.bias"}
    with pytest.raises(UsageError, match="was not trained to segment"):
        read_checkpoint(out / "last.ckpt")
    segmenter = f"segmenter={stages[0] / 'segmenter.ckpt'}"
    for exports, initial in ((True, [segmenter]), (True, "whole.ckpt"), (False, ["locator=a.ckpt"])):
        assert task(segment=False, initial=initial).exports is exports


def test_the_loss_of_the_locator_alone_is_over_the_zones_that_are_known():
    module, logged = task(segment=False).eval(), []
    module.log = lambda name, value, *, batch_size, **_: logged.append((name, float(value), batch_size))
    image = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    zones = torch.eye(6)[:4]
    zones[1:3] = torch.nan
    with torch.no_grad():
        for rows in (slice(0, 3), slice(1, 3)):
            ids = [str(row) for row in range(4)][rows]
            batch = {"image": image[rows], "zones": zones[rows], "image_id": ids, "source": [""] * len(ids)}
            module.validation_step(batch | {"finding": torch.ones(len(ids))}, 0)
        only = nn.functional.binary_cross_entropy_with_logits(module.network.locator(image[:1])[0][0], zones[0])
    assert logged == [("inner/loss", pytest.approx(float(only)), 1)], "nothing of images whose zones are unknown"


def test_the_locator_learns_of_withheld_zones_too_since_it_sees_them(tmp_path):
    trainer, _ = fit(task(), tmp_path, report_withheld=1.0)
    fit_part = trainer.datamodule.sets["fit"]
    items = [fit_part[0, i] for i in range(len(fit_part))]
    for item, sample in zip(items, fit_part.samples, strict=True):
        assert item["zones"].tolist() == [float(present) for present in sample.report.zones.present]
    texts = [item["text"] for item in items]
    assert texts != [sentence(sample.report.zones) for sample in fit_part.samples]  # words and mask are cut


def test_frozen_parts_keep_weights_and_statistics(tmp_path):
    module = task(freeze=("locator",))
    fit(module, tmp_path, 2)
    learned, start = module.network.state_dict(), task().network
    start.load_pretrained()
    for name, value in start.state_dict().items():
        if name.startswith("locator."):
            assert torch.equal(learned[name], value), name
    assert not torch.equal(learned["segmenter.trunk.weight"], start.state_dict()["segmenter.trunk.weight"])
    with pytest.raises(UsageError, match=r"no part 'lokator'.*locator, segmenter"):
        task(freeze=("lokator",))
    with pytest.raises(UsageError, match=r"everything .* is frozen"):
        task(freeze=("locator", "segmenter"))


@pytest.fixture
def stages(tmp_path):
    """Checkpoints of a locator trained in its network, and of a segmenter trained alone; their networks."""
    torch.manual_seed(5)
    first, second = Guided(), Shift()
    first.set_thresholds(torch.linspace(0.2, 0.7, 6))
    for name, network in (("locator", first), ("segmenter", second)):
        state = {f"network.{key}": value for key, value in network.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / f"{name}.ckpt")
    return tmp_path, first, second


def same(one, other):
    return all(torch.equal(other.state_dict()[name], value) for name, value in one.state_dict().items())


def begun(initial):
    network = Guided()
    begin(network, initial)
    return network


def test_parts_start_from_their_own_trainings(stages):
    folder, first, second = stages
    checkpoint = torch.load(folder / "segmenter.ckpt", weights_only=True)
    checkpoint["state_dict"]["network.zone_head.weight"] = torch.zeros(6, 8)  # of its own training, left behind
    torch.save(checkpoint, folder / "with.ckpt")
    for segmenter in ("segmenter.ckpt", "with.ckpt"):
        network = begun([f"locator={folder / 'locator.ckpt'}", f"segmenter={folder / segmenter}"])
        assert same(first.locator, network.locator)
        assert torch.equal(network.thresholds, first.thresholds)  # zones are written as they were selected
        assert same(second, network.segmenter)

    network = begun(f"locator={folder / 'locator.ckpt'}")
    assert same(first.locator, network.locator)  # what pretrained tensors would have changed
    assert (network.segmenter.trunk.bias == 7).all()  # not named, so as if nothing had been trained

    network = begun([f"segmenter.trunk={folder / 'segmenter.ckpt'}"])  # a part of a part, by the last word of its name
    assert same(second.trunk, network.segmenter.trunk)
    assert not same(second.read, network.segmenter.read)


def test_a_part_starts_from_a_bundle(stages):
    folder, _, second = stages
    weights = folder / "weights"
    weights.mkdir()
    halves = {name: value.half().clone() for name, value in second.state_dict().items()}
    save_file(halves, weights / "model.safetensors")
    network = begun([f"segmenter={weights}"])
    for name, value in second.state_dict().items():
        assert torch.equal(network.segmenter.state_dict()[name], value.half().float()), name
    (weights / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UsageError, match="not a readable bundle"):
        begun([f"segmenter={weights}"])


def test_weights_inside_are_named_like_a_file(stages, monkeypatch):
    folder, _, second = stages
    (folder / "inside/small").mkdir(parents=True)
    (folder / "inside/small/config.json").write_text("{}")
    save_file(second.state_dict(), folder / "inside/small/model.safetensors")
    monkeypatch.setattr(bundle, "WEIGHTS_FOLDER", folder / "inside")
    assert same(second, begun(["segmenter=small"]).segmenter)
    assert named_parts(["small", "locator=small", "other", "a.b=x=y"]) == [
        (None, folder / "inside/small"),
        ("locator", folder / "inside/small"),
        (None, Path("other")),
        ("a.b", Path("x=y")),
    ]
    with pytest.raises(UsageError, match=r"no checkpoint.*smal\..*weights inside: small"):
        begun("smal")


def test_parts_replace_those_of_a_whole_checkpoint(stages):
    folder, *_ = stages
    locator, segmenter = folder / "locator.ckpt", folder / "segmenter.ckpt"
    whole, both = begun(str(locator)), begun([str(locator), f"segmenter={segmenter}"])
    part = begun([f"segmenter={segmenter}"])
    for name, value in both.state_dict().items():
        given = part if name.startswith("segmenter.") else whole
        assert torch.equal(value, given.state_dict()[name]), name


def test_what_parts_cannot_start_from(stages):
    folder, *_ = stages
    locator, segmenter = folder / "locator.ckpt", folder / "segmenter.ckpt"
    for initial, message in (
        ([str(locator), str(segmenter)], "one whole checkpoint at most"),
        ([f"segmenter={locator}", f"segmenter={segmenter}"], "each part from one"),
        ([f"locator={segmenter}"], "another network"),
        ([f"head={segmenter}"], r"no part 'head'.*locator, segmenter"),
        ([f"locator={folder / 'none.ckpt'}"], "no checkpoint to start from"),
    ):
        with pytest.raises(UsageError, match=message):
            begun(initial)
    (folder / "a=b").mkdir()
    odd = folder / "a=b" / "whole.ckpt"
    odd.write_bytes(locator.read_bytes())
    begun(str(odd))  # a path may hold what divides part and path


def test_settings_for_networks_that_write_no_reports_are_refused():
    for settings in ({"self_guided": 0.5}, {"segment": False}):
        with pytest.raises(UsageError, match="write their own reports"):
            task(UNet(UNetConfig(width=4)), text_encoder=None, zone_weight=0.0, **settings)
    with pytest.raises(UsageError, match="predicts zones"):
        task(UNet(UNetConfig(width=4)), text_encoder=None)
    with pytest.raises(UsageError, match="0 to 1"):
        task(self_guided=1.5)
    with pytest.raises(UsageError, match=r"longer than the network.*max_tokens 17.*at most 16.*model\.max_tokens"):
        task(max_tokens=TOKENS + 1)


def test_thresholds_of_earlier_weights_are_kept_where_few_films_select(tmp_path, caplog):
    """Seven films would fit seven films; a network of its own has no others."""
    _, out = fit(task(), tmp_path, 1, "before")
    before = torch.load(out / "best.ckpt", weights_only=True)["state_dict"]["network.thresholds"]
    assert (before != 0.5).any()
    assert "W_THRESHOLDS_KEPT" not in caplog.text
    again = task(initial=str(out / "best.ckpt"))
    again.network.set_thresholds(torch.full((6,), 0.3))
    fit(again, tmp_path, 1, "after", seed=5)
    assert torch.equal(again.network.thresholds, before)
    assert "W_THRESHOLDS_KEPT: 3 films" in caplog.text


def test_more_films_choose_them_anew(tmp_path, monkeypatch):
    from textray.training import self_guided

    _, out = fit(task(), tmp_path, 1, "before")
    monkeypatch.setattr(self_guided, "FEWEST", 3)
    monkeypatch.setattr(self_guided, "choose_thresholds", lambda *_: (0.25,) * 6)
    again = task(initial=str(out / "best.ckpt"))
    fit(again, tmp_path, 1, "after")
    assert torch.equal(again.network.thresholds, torch.full((6,), 0.25))


def test_a_checkpoint_names_the_weights_that_it_comes_from_and_their_terms(tmp_path):
    from textray import registry
    from textray.training.checkpoints import start_of

    _, out = fit(task(), tmp_path, 1, "before")
    _, later = fit(task(initial=str(out / "best.ckpt")), tmp_path, 1, "after")
    facts = torch.load(later / "best.ckpt", weights_only=True)["textray"]
    assert facts["start"] == [{"name": "best.ckpt", "data": "phantom", "terms": registry.dataset("phantom").terms}]
    assert start_of([f"locator={later / 'best.ckpt'}"])[1:] == facts["start"]  # and what that one came from
    assert start_of(None) == []
    if "sgseg_lite" in bundle.inside():
        (inside,) = start_of("sgseg_lite")
        assert (inside["name"], inside["data"]) == ("sgseg_lite", "qata_cov19")
        assert inside["terms"].startswith("Research use only")
