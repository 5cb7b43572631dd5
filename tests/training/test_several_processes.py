"""Trainings in several processes and with several workers: they learn, select and resume as one process does."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from textray.data.batches import EpochSampler, RankSampler
from textray.data.grounding import GroundingData
from textray.data.segmentation import SegmentationData
from textray.models.base import Network, Output
from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig, TextTrunkConfig
from textray.nn.bert import BertSizes
from textray.training.grounding import GroundingTask
from textray.training.segmentation import SegmentationTask


@dataclass(frozen=True)
class NoConfig:
    pass


class Conv(Network):
    """Two convolutions: without norms, so that a batch in two halves gives the gradient of the whole."""

    def __init__(self):
        super().__init__(in_channels=3, size_multiple=4, text_width=None, most_tokens=None)
        torch.manual_seed(0)
        self.config = NoConfig()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    def load_pretrained(self):
        pass

    def forward(self, image, text_features=None, text_mask=None):
        return Output(self.layers(image))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("length", [8, 9, 11])
def test_shares_are_disjoint_and_together_are_the_batches_of_one_process(ranks, length):
    def keys(rank, ranks, epoch=4):
        sampler = RankSampler(EpochSampler(length, seed=1, shuffle=True), rank=rank, ranks=ranks)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler) == length // ranks
        return list(sampler)

    whole, parts = keys(0, 1), [keys(rank, ranks) for rank in range(ranks)]
    together = [key for share in zip(*parts, strict=True) for key in share]
    assert together == whole[: length // ranks * ranks]
    assert len(set(together)) == len(together)
    assert whole != keys(0, 1, epoch=5)


def fit(task, data, out, epochs, *, processes=1, resume=None, more=()):
    last = ModelCheckpoint(dirpath=out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = Trainer(
            max_epochs=epochs, logger=False, callbacks=[last, *more], enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, log_every_n_steps=1, default_root_dir=out, num_sanity_val_steps=0,
            devices=processes, strategy="ddp_spawn" if processes > 1 else "auto",
        )  # fmt: skip
        trainer.fit(task, datamodule=data, ckpt_path=resume)
    return trainer


def weights(out):
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo as tested")
def test_two_processes_train_select_and_log_as_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds this file
    found = []
    for processes in (1, 2):
        data = SegmentationData(
            "phantom", size=(32, 32), batch_size=4 // processes, workers=0, limit=9, augment="light",
            cache=str(tmp_path / "cache"),
        )  # fmt: skip
        task = SegmentationTask(Conv(), text_encoder=None, lr=1e-2)
        trainer = fit(task, data, tmp_path / str(processes), 2, processes=processes)
        assert trainer.world_size == processes
        found.append((weights(tmp_path / str(processes)), dict(trainer.callback_metrics)))
    (one, scores), (two, reduced) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, msg=name, rtol=1e-4, atol=1e-6)
    assert scores.keys() == reduced.keys() >= {"train/loss", "inner/loss", "inner/dice", "inner/dice_none"}
    for name, value in scores.items():
        torch.testing.assert_close(reduced[name], value, msg=name, rtol=1e-4, atol=1e-6)


def segmentation(tmp_path, workers):
    data = SegmentationData(
        "phantom", size=(32, 32), batch_size=4, workers=workers, limit=12, augment="light", cache=str(tmp_path / "c"),
    )  # fmt: skip
    return SegmentationTask(Conv(), text_encoder=None, lr=1e-2), data


def grounding(tmp_path, workers):
    torch.manual_seed(0)
    own = BertSizes(pieces=512, width=32, layers=1, heads=2, feed_forward=64, positions=97)
    text = TextTrunkConfig(encoder="own", last_layers=1, dropout=0.1, own=own)
    network = SentenceGrounding(SentenceGroundingConfig(trunk="convnext_atto", enlarge=None, width=32, text=text))
    data = GroundingData(
        "phantom", size=(32, 32), workers=workers, paraphrase=0.5, batch_size=4, limit=12, cache=str(tmp_path / "c")
    )
    return GroundingTask(network, lr=1e-3), data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of newer Pythons, about a fork beside threads
@pytest.mark.parametrize("make", [segmentation, grounding])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_resumed_training_has_the_weights_of_an_uninterrupted_one(make, workers, tmp_path):
    """Workers fetch batches ahead, and must not fetch those of the first epoch again."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(*make(tmp_path, workers), whole, 3)
    stop = type("Stop", (Callback,), {"on_train_epoch_end": lambda self, t, m: setattr(t, "should_stop", True)})()
    fit(*make(tmp_path, workers), cut, 3, more=[stop])
    torch.manual_seed(99)
    fit(*make(tmp_path, workers), cut, 3, resume=cut / "last.ckpt")
    expected, found = weights(whole), weights(cut)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
