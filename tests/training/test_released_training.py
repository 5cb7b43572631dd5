"""Training and export of networks that need a text: nothing on the way calls them without one."""

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("lightning")
from textray.errors import ShapeError
from textray.export.segmenter import write_bank
from textray.models.released.guide_decoder import ReleasedGuideDecoder, ReleasedGuideDecoderConfig
from textray.nn.bert import load_text_encoder
from textray.training.segmentation import SegmentationTask


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    network = ReleasedGuideDecoder(ReleasedGuideDecoderConfig(trunk="convnext_atto", text_width=32))
    return SegmentationTask(network, text_encoder="tiny", loss="dice_only")


def batch(*texts):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(texts), 3, 224, 224, generator=generator)
    mask = (torch.rand(len(texts), 1, 224, 224, generator=generator) > 0.5).float()
    return {
        "image": image,
        "mask": mask,
        "text": list(texts),
        "image_id": [str(row) for row in range(len(texts))],
        "labelled": torch.ones(len(texts), dtype=torch.bool),
        "denied": torch.zeros(len(texts), 6),
        "source": [""] * len(texts),
    }


def test_validation_measures_with_reports_only(task, monkeypatch):
    logged = {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: float(value)}))
    with torch.no_grad():
        task.eval().on_validation_epoch_start()
        task.validation_step(batch("left upper lung", "right lower lung"), 0)
        task.on_validation_epoch_end()
    assert set(logged) == {"inner/loss", "inner/dice", "inner/dice_oracle"}
    assert logged["inner/dice"] == logged["inner/dice_oracle"]


def test_a_training_step_runs_and_an_image_without_report_is_named(task, monkeypatch):
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    assert torch.isfinite(task.train().training_step(batch("left lung", "right lung"), 0))
    with pytest.raises(ShapeError, match=r"released forms need a text.*rows \[1\]"):
        task.training_step(batch("left lung", None), 0)


@pytest.mark.parametrize(("name", "form"), [("guide_decoder", "released"), ("mmi_unet", "paper")])
def test_the_text_bank_is_as_long_as_the_network_takes_it(name, form, tmp_path):
    facts = {"network": name, "form": form}
    features, mask = write_bank(tmp_path, facts, load_text_encoder("tiny", max_tokens=24))
    longest = int(mask.sum(1).max())
    assert features.shape == (64, longest, 32)
    if form == "released":  # reads padding, all of it and as the encoder gives it
        assert longest == 24
        assert mask.all()
        assert features[9, -1].abs().max() > 0.1
    else:
        assert longest < 24
    assert load_file(tmp_path / "text_bank.safetensors")["mask"].shape == mask.shape
