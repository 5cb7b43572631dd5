"""What every segmentation row of the registry promises, tried on a small build of it.

A row that is added without a small build here fails `test_every_row_is_tried`.
"""

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from textray import registry
from textray.errors import ShapeError
from textray.models.base import Output
from textray.models.build import build as read_network
from textray.models.self_guided import SelfGuided

ROOT = Path(__file__).parents[2]
TEXT_WIDTH = 8
TOKENS = 5


@dataclass(frozen=True, kw_only=True)
class Build:
    """A small build of a row."""

    row: str
    config: dict[str, Any]
    form: str = "paper"

    @property
    def facts(self):
        return registry.model(self.row).form(self.form)


# Parts of self-guided networks; with 8 cells on the finest of three grids there are more queries than places at 32 px.
LERG = {"trunk": "efficientnet_lite0", "width": 16, "queries": 30, "layers": 2, "heads": 2, "ffn": 16, "expansion": 0.5}
GUIDED = {
    "trunk": "efficientnet_lite0",
    "text_width": TEXT_WIDTH,
    "decoder_channels": (8, 12, 16),
    "tokens": 12,
    "mixed_tokens": (6, 4, 3),
}
MATCHED = {"trunk": "efficientnet_lite0", "text_width": TEXT_WIDTH, "decoder_channels": (8, 12, 16), "ffn_width": 16}

# Each row with each value of its options, and each kind of trunk.
BUILDS = {
    "mmi_unet-resnet": Build(row="mmi_unet", config={"trunk": "resnet18", "text_width": TEXT_WIDTH, "ffn_width": 16}),
    "mmi_unet-convnext": Build(
        row="mmi_unet",
        config={
            "trunk": "convnext_atto",
            "text_width": TEXT_WIDTH,
            "decoder_channels": (8, 12, 16),
            "skip": "sum",
            "positions": "sine",
            "zone_head": True,
        },
    ),
    "mmi_unet_gd": Build(
        row="mmi_unet_gd",
        config={
            "trunk": "efficientnet_lite0",
            "text_width": TEXT_WIDTH,
            "decoder_channels": (8, 12, 16),
            "tokens": 12,
            "mixed_tokens": (6, 4, 3),
            "skip": "sum",
            "positions": "sine",
            "zone_head": True,
        },
    ),
    "guide_decoder": Build(row="guide_decoder", config={"trunk": "resnet18", "text_width": TEXT_WIDTH}),
    "sgseg-guide_decoder": Build(row="sgseg", config={"locator": LERG, "guide_decoder": GUIDED, "tokens": 12}),
    "sgseg-mmi_unet": Build(
        row="sgseg",
        config={
            "locator": {**LERG, "aggregate": "six", "size": [64, 32]},
            "guide_decoder": None,
            "mmi_unet": MATCHED,
            "tokens": 12,
            "zone_tokens": True,
        },
    ),
    "sgseg_simple": Build(
        row="sgseg_simple",
        config={
            "locator": {"trunk": "efficientnet_lite0", "width": 16},
            "guide_decoder": None,
            "mmi_unet": MATCHED,
            "tokens": 12,
            "zone_tokens": True,
        },
    ),
    "lvit": Build(
        row="lvit", config={"channels": 8, "size": (64, 64), "text_width": TEXT_WIDTH, "tokens": 12, "dropout": 0.0}
    ),
    "lvit-options": Build(
        row="lvit",
        config={
            "channels": 8,
            "patches": (8, 4, 2, 1),
            "size": (32, 48),
            "text_width": TEXT_WIDTH,
            "tokens": 12,
            "depth": 2,
            "heads": 4,
            "expansion": 2,
            "gate": "sigmoid",
        },
    ),
    "lvit-plain-skips": Build(
        row="lvit", config={"channels": 8, "size": (64, 96), "text_width": TEXT_WIDTH, "tokens": 12, "plam": False}
    ),
    "unet": Build(row="unet", config={"width": 4}),
}
EXPORTED = "mmi_unet-resnet", "unet"  # by every run of the tests; the others by those of what is slow


def make(build, seed=0):
    """A network; a self-guided one finds all six zones in every image, so that it always writes a report."""
    torch.manual_seed(seed)
    network = read_network(build.facts, build.config)
    if isinstance(network, SelfGuided):
        generator = torch.Generator().manual_seed(5)
        network.set_bank(torch.randn(64, TOKENS, TEXT_WIDTH, generator=generator), torch.ones(64, TOKENS))
        network.set_thresholds(torch.zeros(6))
    return network


@pytest.fixture(scope="module", params=BUILDS, ids=str)
def build(request):
    return BUILDS[request.param]


@pytest.fixture(scope="module")
def shared(build):
    """A network in evaluation mode whose norms have seen images; not to be changed."""
    network = make(build)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # take the statistics of what it sees
    with torch.no_grad():
        network.train()(*inputs(build, *batch(seed=7, rows=3)))
    return network.eval()


def reads_text(build):
    return "text" in registry.model(build.row).reads


def batch(seed=0, rows=2, size=(64, 96)):
    """Images and texts, of which the first has all its tokens, the second two, a third none."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, 3, *size, generator=generator)
    features = torch.randn(rows, TOKENS, TEXT_WIDTH, generator=generator)
    mask = torch.zeros(rows, TOKENS)
    for row, real in enumerate((TOKENS, 2, 0)[:rows]):
        mask[row, :real] = 1
    return image, features, mask


def padded(features, mask, tokens):
    """The same texts with padding up to a number of tokens."""
    more = tokens - TOKENS
    assert more > 0
    return torch.nn.functional.pad(features, (0, 0, 0, more)), torch.nn.functional.pad(mask, (0, more))


def inputs(build, image, features, mask):
    return (image, features, mask) if reads_text(build) else (image,)


def test_every_row_is_tried():
    """Released forms, which know one size and need a text, are tried in `test_released_contract`."""
    rows = [row for row in registry.MODELS.values() if row.task == "segmentation"]
    wanted = {(row.name, form.name) for row in rows for form in row.forms if form.name != "released"}
    assert {(b.row, b.form) for b in BUILDS.values()} == wanted


class TestSegmentationContract:
    def test_row_states_facts(self, build, shared):
        row = registry.model(build.row)
        assert shared.size_multiple == build.facts.size_multiple
        assert (shared.text_width is not None) == ("text" in row.reads)
        assert shared.most_tokens == build.config.get("tokens", build.facts.most_tokens)
        assert (ROOT / row.card).is_file()

    def test_config_is_one_frozen_dataclass_with_defaults(self, build, shared):
        config = registry.load(build.facts.config)
        assert is_dataclass(config)
        made = shared.config
        assert isinstance(made, config)
        with pytest.raises(FrozenInstanceError):
            setattr(made, fields(config)[0].name, None)

    @pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 64)], ids=str)
    def test_forward_gives_a_logit_per_pixel(self, build, shared, size):
        with torch.no_grad():
            output = shared(*inputs(build, *batch(size=size)))
        assert isinstance(output, Output)
        assert output.logits.shape == (2, 1, *size)
        assert output.logits.dtype == torch.float32
        assert torch.isfinite(output.logits).all()
        assert (output.zone_logits is not None) == shared.tells_zones
        assert output.zone_logits is None or output.zone_logits.shape == (2, 6)
        for found in output.attention or ():
            assert found.ndim == 4
            assert found.min() >= 0
            torch.testing.assert_close(found.sum((2, 3)), torch.ones(2, 1))

    def test_logits_are_raw_scores(self, build):
        """Scaling the last layer must not be squashed by a sigmoid in the network."""
        network = make(build).eval()
        last = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 1][-1]
        with torch.no_grad():
            last.bias.fill_(30.0)
            logits = network(*inputs(build, *batch())).logits
        assert logits.max() > 1

    def test_smallest_size_and_one_image(self, build, shared):
        side = build.facts.size_multiple
        with torch.no_grad():
            logits = shared(*inputs(build, *batch(rows=1, size=(side, side)))).logits
        assert logits.shape == (1, 1, side, side)

    @pytest.mark.parametrize("size", [(64, 65), (60, 64), (24, 64)], ids=str)
    def test_size_between_multiples_is_refused(self, build, shared, size):
        with pytest.raises(ShapeError, match="cannot run on this image") as refused:
            shared(torch.zeros(1, 3, *size))
        message = str(refused.value)
        assert str((1, 3, *size)) in message
        assert f"multiples of {shared.size_multiple}" in message
        assert "Preprocess" in message

    @pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64)], ids=str)
    def test_other_channels_are_refused(self, shared, shape):
        with pytest.raises(ShapeError, match=r"Expected \(B, 3, H, W\)"):
            shared(torch.zeros(shape))

    def test_runs_without_text_unless_it_needs_it(self, build, shared):
        image = batch()[0]
        if build.facts.needs_text:
            with pytest.raises(ShapeError):
                shared(image)
        else:
            with torch.no_grad():
                assert shared(image).logits.shape == (2, 1, 64, 96)

    def test_evaluation_is_deterministic(self, build, shared):
        given = inputs(build, *batch())
        with torch.no_grad():
            first, second = shared(*given).logits, shared(*given).logits
        assert torch.equal(first, second)

    def test_images_of_a_batch_do_not_see_each_other(self, build, shared):
        image, features, mask = batch(rows=3)
        with torch.no_grad():
            together = shared(*inputs(build, image, features, mask)).logits
            alone = shared(*inputs(build, image[1:2], features[1:2], mask[1:2])).logits
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)

    def test_image_matters_everywhere(self, build, shared):
        image, features, mask = batch(rows=1)
        other = image.clone()
        other[..., -1, -1] += 10
        with torch.no_grad():
            before = shared(*inputs(build, image, features, mask)).logits
            after = shared(*inputs(build, other, features, mask)).logits
        assert not torch.equal(before, after)

    def test_saved_state_gives_the_same_output(self, build, shared, tmp_path):
        file = tmp_path / "model.safetensors"
        save_file(shared.state_dict(), str(file))
        again = make(build, seed=99).eval()
        given = inputs(build, *batch())
        with torch.no_grad():
            wanted = shared(*given).logits
            assert not torch.equal(again(*given).logits, wanted)
            again.load_state_dict(load_file(file), strict=True)
            assert torch.equal(again(*given).logits, wanted)

    def test_every_trainable_parameter_learns(self, build):
        network = make(build).train()
        given = inputs(build, *batch(rows=3))
        trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        optimizer = torch.optim.SGD(trainable.values(), lr=1e-2)
        for _ in range(2):  # ResNet's residual branches start at zero: what is inside them learns from the second step
            optimizer.zero_grad()
            output = network(*given)
            scores = [score for score in (output.logits, output.zone_logits) if score is not None]
            sum(score.square().mean() for score in scores).backward()
            assert [n for n, p in trainable.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
            optimizer.step()
        # A key's bias shifts all scores of a row alike and a bias before a batch norm is subtracted again: those are
        # zero by their mathematics. Matrices and kernels are not.
        assert [n for n, p in trainable.items() if p.ndim > 1 and not p.grad.any()] == []

    def test_a_training_step_lowers_the_loss(self, build):
        network = make(build).eval()  # without dropout, so that the two losses compare
        given = inputs(build, *batch())
        target = torch.zeros(2, 1, 64, 96)
        target[:, :, :32] = 1
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(2):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(*given).logits, target)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "build",
    [pytest.param(name, marks=() if name in EXPORTED else pytest.mark.slow) for name in BUILDS],
    indirect=True,
    scope="module",
)
def test_onnx_graph_agrees(build, shared, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from textray.export.segmenter import write_graph
    from textray.preprocess import Preprocess

    text = (TOKENS, TEXT_WIDTH) if reads_text(build) else None
    write_graph(shared, tmp_path / "model.onnx", Preprocess(size=(64, 96)), text)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    assert names == (["image", "text_features", "text_mask"] if text else ["image"])
    for rows in (1, 2, 3):  # the batch is free; row 3 has no text
        given = inputs(build, *batch(seed=rows, rows=rows))
        with torch.no_grad():
            wanted = shared(*given).logits.numpy()
        found = session.run(["logits"], dict(zip(names, (g.numpy() for g in given), strict=True)))[0]
        np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "build", [name for name, found in BUILDS.items() if reads_text(found)], indirect=True, scope="module"
)
class TestReportContract:
    """What a network that reads a report promises besides."""

    def test_text_steers(self, shared):
        image, features, mask = batch()
        with torch.no_grad():
            before = shared(image, features, mask).logits
            after = shared(image, features.flip(2), mask).logits
        assert (before - after).abs().amax((1, 2, 3)).min() > 1e-6  # in every row

    def test_a_text_reaches_its_own_image_only(self, shared):
        image, features, mask = batch()
        other = features.clone()
        other[1] += 1
        with torch.no_grad():
            before, after = shared(image, features, mask).logits, shared(image, other, mask).logits
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])

    def test_padding_is_never_read(self, shared):
        image, features, mask = batch(rows=3)
        other = torch.where(mask[..., None] > 0, features, 1e3 * torch.randn(3, TOKENS, TEXT_WIDTH))
        with torch.no_grad():
            assert torch.equal(shared(image, features, mask).logits, shared(image, other, mask).logits)

    def test_more_padding_changes_nothing(self, shared):
        image, features, mask = batch()
        room = TOKENS + 35 if shared.most_tokens is None else shared.most_tokens
        with torch.no_grad():
            short = shared(image, features, mask).logits
            long = shared(image, *padded(features, mask, room)).logits
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)

    def test_a_text_without_room_is_refused(self, shared):
        image, features, mask = batch()
        most = shared.most_tokens
        if most is None:
            with torch.no_grad():
                assert shared(image, *padded(features, mask, 200)).logits.shape == (2, 1, 64, 96)
            return
        with pytest.raises(ShapeError, match=f"too long.*Got {most + 1} tokens.*at most {most}") as refused:
            shared(image, *padded(features, mask, most + 1))
        assert "max_tokens" in str(refused.value)

    def test_a_row_without_text_is_the_text_free_call(self, shared):
        image, features, mask = batch(rows=3)
        with torch.no_grad():
            mixed, free = shared(image, features, mask).logits, shared(image).logits
        torch.testing.assert_close(mixed[2], free[2], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(mixed[0], free[0], rtol=1e-4, atol=1e-5)

    def test_mask_may_be_bool_float_or_missing(self, shared):
        image, features, mask = batch()
        with torch.no_grad():
            assert torch.equal(shared(image, features, mask).logits, shared(image, features, mask > 0).logits)
            ones = torch.ones(2, TOKENS)
            assert torch.equal(shared(image, features).logits, shared(image, features, ones).logits)

    def test_text_of_another_width_is_refused(self, shared):
        image, features, mask = batch()
        with pytest.raises(ShapeError, match=rf"Expected \(2, L, {TEXT_WIDTH}\)") as refused:
            shared(image, features[..., :-1], mask)
        assert "encoder" in str(refused.value)

    def test_text_of_another_batch_is_refused(self, shared):
        image, features, mask = batch()
        with pytest.raises(ShapeError, match="text features do not fit"):
            shared(image, features[:1], mask[:1])
        with pytest.raises(ShapeError, match="text features do not fit"):
            shared(image, features[0], mask)

    @pytest.mark.parametrize("shape", [(2, TOKENS - 1), (1, TOKENS), (2, TOKENS, 1)], ids=str)
    def test_mask_that_does_not_fit_is_refused(self, shared, shape):
        image, features, _ = batch()
        with pytest.raises(ShapeError, match=rf"text mask does not fit.*Expected \(2, {TOKENS}\)"):
            shared(image, features, torch.ones(shape))
