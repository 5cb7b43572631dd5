"""Contrastive pre-training: its loss against NumPy, what takes part in it, and what starts from it."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from textray.data.segmentation import SegmentationData
from textray.errors import UsageError
from textray.models.baselines.unet import UNet, UNetConfig
from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
from textray.training.checkpoints import begin
from textray.training.contrastive import ContrastiveTask, contrastive_loss, mean_tokens


def guide_decoder(seed=0):
    torch.manual_seed(seed)
    return GuideDecoder(GuideDecoderConfig(trunk="convnext_atto", text_width=32, decoder_channels=(8, 8, 8)))


@pytest.mark.parametrize("reports", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1, 0]], ids=["different", "repeated"])
def test_loss_is_the_slow_one_in_which_equal_reports_are_no_wrong_answers(reports):
    """Mean of both cross-entropies, one row after another."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(len(reports), 7)), rng.normal(size=(5, 7))[reports]
    same = np.equal.outer(reports, reports)
    total = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(len(a)):
            scores = [10 * a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for j in range(len(b))]
            total -= (np.array(scores) - np.log(np.exp(scores).sum()))[same[i]].mean() / len(a)
    found = contrastive_loss(torch.from_numpy(image), torch.from_numpy(text))
    assert float(found) == pytest.approx(total / 2)


def test_padding_takes_no_part_in_the_mean():
    features, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    found = mean_tokens(features, mask)
    torch.testing.assert_close(found[0], features[0, :2].mean(0))
    assert not found[1].any()
    features[0, 2:] = 99.0
    torch.testing.assert_close(mean_tokens(features, mask), found)


def test_films_without_a_report_take_no_part():
    task = ContrastiveTask(guide_decoder(), text_encoder="tiny").eval()
    image = torch.randn(3, 3, 32, 32)
    batch = {"image": image, "text": ["left upper lung", None, "right lower lung"], "image_id": ["a", "b", "c"]}
    two = {"image": image[[0, 2]], "text": ["left upper lung", "right lower lung"], "image_id": ["a", "c"]}
    torch.testing.assert_close(task._loss(batch), task._loss(two))
    none = task._loss(batch | {"text": [None] * 3})
    none.backward()
    assert none == 0
    with pytest.raises(UsageError, match="one image trunk"):
        ContrastiveTask(UNet(UNetConfig(width=4)), text_encoder="tiny")


def test_a_training_changes_the_trunk_and_a_segmentation_starts_from_it(tmp_path):
    network = guide_decoder()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    data = SegmentationData("phantom", size=(32, 32), batch_size=4, workers=0, limit=8, cache=str(tmp_path / "cache"))
    saved = ModelCheckpoint(dirpath=tmp_path, filename="last", save_on_train_epoch_end=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = Trainer(
            max_epochs=2, logger=False, callbacks=[saved], enable_progress_bar=False, enable_model_summary=False,
            accelerator="cpu",
        )  # fmt: skip
        task = ContrastiveTask(network, text_encoder="tiny", lr=1e-3)
        trainer.fit(task, datamodule=data)
    assert task.current_epoch == 2  # epochs are counted, not batches
    assert torch.isfinite(trainer.callback_metrics["inner/loss"])
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("trunk.") for name in changed)
    facts = torch.load(tmp_path / "last.ckpt", weights_only=True)["textray"]
    assert "network" not in facts  # it segments nothing, so nothing exports it

    other = guide_decoder(1)
    kept = other.head.read.weight.clone()
    begin(other, [f"trunk={tmp_path / 'last.ckpt'}"])
    for name, value in network.trunk.state_dict().items():
        assert torch.equal(other.trunk.state_dict()[name], value)
    assert torch.equal(other.head.read.weight, kept)
