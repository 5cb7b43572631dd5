"""What every row of the registry promises, tried on a small build of each of its forms.

A form that is added without a small build here fails `test_every_form_is_tried`. Released forms know one size, need a
text for every image, attend padding, and carry weights that nothing reads.
"""

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from textray import registry
from textray.errors import ShapeError, UsageError
from textray.models.base import Output
from textray.models.build import build as read_network
from textray.models.self_guided import SelfGuided

ROOT = Path(__file__).parents[2]
WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class Build:
    """A small build of a row."""

    row: str
    config: dict[str, Any]
    form: str = "paper"

    @property
    def facts(self):
        return registry.model(self.row).form(self.form)

    @property
    def reads_text(self):
        return "text" in registry.model(self.row).reads

    @property
    def released(self):
        return self.form == "released"

    @property
    def size(self):
        return self.facts.size or (64, 96)

    @property
    def tokens(self):
        return self.facts.tokens or (24 if self.released else 5)


# Parts of self-guided networks; with 8 cells on the finest of three grids there are more queries than places at 32 px.
LERG = {"trunk": "efficientnet_lite0", "width": 16, "queries": 30, "layers": 2, "heads": 2, "ffn": 16, "expansion": 0.5}
LITE = {"trunk": "efficientnet_lite0", "text_width": WIDTH, "decoder_channels": (8, 12, 16)}
GUIDED = {**LITE, "tokens": 12, "mixed_tokens": (6, 4, 3)}
MATCHED = {**LITE, "ffn_width": 16, "lungs": True}
WRITES = {
    "guide_decoder": None, "mmi_unet": MATCHED, "tokens": 12, "zone_tokens": True, "presence": True, "denial": True,
}  # fmt: skip
OPTIONS = {"skip": "sum", "positions": "sine", "zone_head": True}
LVIT = {"channels": 8, "text_width": WIDTH}
SWIN = {"width": 8, "depths": (1, 2, 1, 1), "heads": (1, 2, 2, 4), "window": 4, "size": (64, 96), "drop_path": 0.0}
VIT = {"size": (64, 96), "width": 16, "depth": 4, "heads": 2, "decoder_channels": (8, 8, 12)}
TRUNK = {"trunk": "efficientnet_lite0"}
SMALL = {**TRUNK, "decoder_channels": (8, 8, 12)}
RELEASED = {"trunk": "convnext_atto", "text_width": WIDTH}

# Each form with each value of its options, and each kind of trunk.
BUILDS = {
    "mmi_unet-resnet": Build(row="mmi_unet", config={"trunk": "resnet18", "text_width": WIDTH, "ffn_width": 16}),
    "mmi_unet-convnext": Build(row="mmi_unet", config={**LITE, "trunk": "convnext_atto", **OPTIONS}),
    "mmi_unet_gd": Build(row="mmi_unet_gd", config={**GUIDED, **OPTIONS}),
    "guide_decoder": Build(row="guide_decoder", config={"trunk": "resnet18", "text_width": WIDTH}),
    "sgseg-guide_decoder": Build(row="sgseg", config={"locator": LERG, "guide_decoder": GUIDED, "tokens": 12}),
    "sgseg-mmi_unet": Build(
        row="sgseg", config={**WRITES, "locator": {**LERG, "aggregate": "six", "size": [64, 32]}}
    ),
    "sgseg_simple": Build(
        row="sgseg_simple", config={**WRITES, "locator": {"trunk": "efficientnet_lite0", "width": 16}}
    ),
    "lvit": Build(row="lvit", config={**LVIT, "size": (64, 64), "tokens": 12, "dropout": 0.0}),
    "lvit-options": Build(
        row="lvit",
        config={
            **LVIT, "patches": (8, 4, 2, 1), "size": (32, 48), "tokens": 12, "depth": 2, "heads": 4, "expansion": 2,
            "gate": "sigmoid",
        },
    ),
    "lvit-plain-skips": Build(row="lvit", config={**LVIT, "size": (64, 96), "tokens": 12, "plam": False}),
    "unet": Build(row="unet", config={"width": 4}),
    "unet_plus_plus": Build(row="unet_plus_plus", config={"width": 4}),
    "attention_unet": Build(row="attention_unet", config={"width": 4}),
    "nnunet": Build(row="nnunet", config={"width": 4, "levels": 5}),
    "swin_unet": Build(row="swin_unet", config={"trunk": SWIN, "decoder_depth": 2}),
    "transunet": Build(row="transunet", config={
        "size": (64, 96), "layers": (1, 1, 1), "channels": (128, 128, 128), "width": 16, "depth": 2, "heads": 2,
        "decoder_channels": (16, 8, 8, 4),
    }),
    "uctransnet": Build(row="uctransnet", config={"width": 8, "size": (64, 64), "depth": 1, "heads": 2, "dropout": 0}),
    "clip": Build(row="clip", config=VIT),
    "clip_text": Build(row="clip_text", config={**VIT, "text_width": WIDTH}),
    "gloria": Build(row="gloria", config={**SMALL, "text_width": WIDTH, "width": 8}),
    "convirt": Build(row="convirt", config=SMALL),
    "tganet": Build(row="tganet", config={**TRUNK, "width": 8, "dilations": (1, 3), "label_width": 5}),
    "vilt": Build(row="vilt", config={
        "size": (64, 96), "text_width": WIDTH, "width": 16, "depth": 4, "heads": 2, "decoder_channels": (4, 4, 8, 8, 8),
    }),
    "lavt": Build(row="lavt", config={"trunk": SWIN, "text_width": WIDTH, "decoder_channels": 8}),
    "mmi_unet-released": Build(row="mmi_unet", form="released", config=RELEASED),
    "mmi_unet_gd-released": Build(row="mmi_unet_gd", form="released", config=RELEASED),
    "guide_decoder-released": Build(row="guide_decoder", form="released", config=RELEASED),
    "lvit-released": Build(row="lvit", form="released", config={**LVIT, "dropout": 0.0}),
}  # fmt: skip
# Text encoders and builds of grounding networks.
OWN = {"pieces": 30, "width": 8, "layers": 2, "heads": 2, "feed_forward": 12, "positions": 16}
TEXT = {"encoder": "own", "last_layers": 1, "own": OWN}
TINY = {"encoder": "tiny", "last_layers": 2}
PLACES = {"trunk": "efficientnet_lite0", "enlarge": None, "local_stage": 2, "width": 6, "text": TEXT}
GROUNDING = {
    name: Build(row="sentence_grounding", config=config)
    for name, config in {
        "grounding-resnet": {"trunk": "resnet10t", "enlarge": 80, "text": TEXT},
        "grounding-efficientnet": PLACES,
        "grounding-convnext": {"trunk": "convnext_atto", "enlarge": None, "positions": True, "text": TINY},
        "grounding-factored": {**PLACES, "local": "factored", "pooled": "places", "finer": True, "merge": 2},
    }.items()
}
EXPORTED = "mmi_unet-resnet", "unet"  # by every run of the tests; the others by those of what is slow
PAPER = [name for name, build in BUILDS.items() if not build.released]


def of(names):
    """Run a test for these builds only."""
    return pytest.mark.parametrize("build", list(names), indirect=True, scope="module")


def make(build, seed=0):
    """A network; a self-guided one finds all six zones in every image, so that it always writes a report."""
    torch.manual_seed(seed)
    network = read_network(build.facts, build.config)
    if isinstance(network, SelfGuided):
        generator = torch.Generator().manual_seed(5)
        network.set_bank(torch.randn(64, build.tokens, WIDTH, generator=generator), torch.ones(64, build.tokens))
        network.set_thresholds(torch.zeros(6))
    return network


@pytest.fixture(scope="module", params=BUILDS, ids=str)
def build(request):
    return (BUILDS | GROUNDING)[request.param]


@pytest.fixture(scope="module")
def shared(build):
    """A network in evaluation mode whose norms, if it segments, have seen images; not to be changed."""
    network = make(build)
    if registry.model(build.row).task == "grounding":
        return network.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # take the statistics of what it sees
    with torch.no_grad():
        network.train()(*inputs(build, seed=7, rows=3))
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.1)  # a trunk without weights hardly changes what it reads
    return network.eval()


def inputs(build, seed=0, rows=2, size=None, tokens=None):
    """Images and, where they are read, texts: the first has all its tokens, the second two, a third none if it may."""
    tokens = tokens or build.tokens
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, 3, *(size or build.size), generator=generator)
    features = torch.randn(rows, tokens, WIDTH, generator=generator)
    mask = torch.zeros(rows, tokens)
    for row, real in enumerate((tokens, 2, 2 if build.facts.needs_text else 0)[:rows]):
        mask[row, :real] = 1
    return (image, features, mask) if build.reads_text else (image,)


def denials(network, rows):
    """What a network that reads denials is also called with: all zones of the first image, one of the others."""
    denied = torch.zeros(rows, 6)
    denied[0], denied[:, 2] = 1, 1
    return {"denied": denied} if network.reads_denial else {}


def run(network, *given):
    with torch.no_grad():
        return network(*given).logits


def test_every_form_is_tried():
    for task, builds in (("segmentation", BUILDS), ("grounding", GROUNDING)):
        rows = [row for row in registry.MODELS.values() if row.task == task]
        wanted = {(row.name, form.name) for row in rows for form in row.forms}
        assert {(b.row, b.form) for b in builds.values()} == wanted


@of([*BUILDS, *GROUNDING])
def test_config_is_one_frozen_dataclass_with_defaults(build, shared):
    config = registry.load(build.facts.config)
    assert is_dataclass(config)
    assert isinstance(shared.config, config)
    with pytest.raises(FrozenInstanceError):
        setattr(shared.config, fields(config)[0].name, None)


class TestSegmentationContract:
    def test_row_states_facts(self, build, shared):
        card = (ROOT / registry.model(build.row).card).read_text(encoding="utf-8")
        assert registry.form_of(type(shared)) == (build.row, build.form)
        assert shared.size_multiple == build.facts.size_multiple
        assert (shared.text_width is not None) == build.reads_text
        assert shared.needs_text == build.facts.needs_text
        assert shared.most_tokens == build.config.get("tokens", build.facts.most_tokens)
        if build.released:
            assert build.facts.needs_text
            assert build.facts.size == (224, 224)
            assert shared.tokens == build.facts.tokens
            assert "## Released form" in card

    def test_forward_gives_a_logit_per_pixel(self, build, shared):
        side = build.facts.size_multiple
        for size in [build.size] if build.released else [(64, 64), (32, 96), (96, 64), (side, side)]:
            with torch.no_grad():
                output = shared(*inputs(build, size=size))
            assert isinstance(output, Output)
            assert output.logits.shape == (2, 1, *size)
            assert output.logits.dtype == torch.float32
            assert torch.isfinite(output.logits).all()
            assert (output.zone_logits is not None) == shared.tells_zones
            assert output.zone_logits is None or output.zone_logits.shape == (2, 6)
            for found, told, shape in (
                (output.presence, shared.tells_presence, (2, 1)),
                (output.lungs, shared.tells_lungs, (2, 2, size[0] // 4, size[1] // 4)),
            ):
                assert (found is not None) == told
                assert found is None or (found.shape == shape and torch.isfinite(found).all())
            for found in output.attention or ():
                assert found.ndim == 4
                assert found.min() >= 0
                torch.testing.assert_close(found.sum((2, 3)), torch.ones(2, 1))

    def test_logits_are_raw_scores(self, build, shared):
        """Moving the last layer must not be squashed by a sigmoid in the network."""
        other = make(build).eval()
        other.load_state_dict(shared.state_dict())
        with torch.no_grad():
            last = [m for m in other.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 1][-1]
            last.bias += 30
        given = inputs(build)
        torch.testing.assert_close(run(other, *given), run(shared, *given) + 30, rtol=0, atol=1e-4)

    def test_another_image_is_refused(self, build, shared):
        height, width = build.size
        for shape in ((1, 1, height, width), (3, height, width), (1, 3, height, width + 1), (1, 3, height - 4, width)):
            with pytest.raises(ShapeError, match=r"cannot run on this image.*Expected \(B, 3, H, W\)") as refused:
                shared(torch.zeros(shape))
            for words in (str(shape), f"multiples of {shared.size_multiple}", "Preprocess"):
                assert words in str(refused.value)

    def test_rows_of_a_batch_do_not_see_each_other(self, build, shared):
        """Image and text, every part of them, matter to their own row, whatever stands beside it."""
        image, *text = inputs(build)
        wanted = run(shared, image, *text)
        other = image.clone()
        other[1, :, -1, -1] += 10
        changed = [(other, *text)]
        if build.reads_text:
            features = text[0].clone()
            features[1] = features[1].flip(1)
            changed.append((image, features, text[1]))
        for given in changed:
            found = run(shared, *given)
            assert torch.equal(found[0], wanted[0])
            assert (found[1] - wanted[1]).abs().max() > 1e-6
        alone = run(shared, *(part[1:] for part in (image, *text)))
        torch.testing.assert_close(alone, wanted[1:], rtol=1e-4, atol=5e-5)  # sums of other lengths round otherwise

    def test_saved_state_gives_the_same_output(self, build, shared, tmp_path):
        file = tmp_path / "model.safetensors"
        save_file(shared.state_dict(), str(file))
        again = make(build, seed=99).eval()
        given = inputs(build)
        wanted = run(shared, *given)
        assert not torch.equal(run(again, *given), wanted)
        again.load_state_dict(load_file(file), strict=True)
        assert torch.equal(run(again, *given), wanted)

    def test_every_trainable_parameter_learns(self, build):
        network = make(build).train()
        given = inputs(build, rows=2 if build.released else 3)
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        live = {name: p for name, p in named.items() if not name.startswith(network.dead)}
        assert all(any(name.startswith(prefix) for name in named) for prefix in network.dead)
        optimizer = torch.optim.SGD(live.values(), lr=1e-2)
        for _ in range(2):  # ResNet's residual branches start at zero: what is inside them learns from the second step
            optimizer.zero_grad()
            output = network(*given, **denials(network, len(given[0])))
            scores = (output.logits, output.zone_logits, output.presence, output.lungs, *(output.deep or ()))
            sum(score.square().mean() for score in scores if score is not None).backward()
            assert {name for name, p in named.items() if p.grad is not None} == set(live)
            assert [name for name, p in live.items() if not torch.isfinite(p.grad).all()] == []
            optimizer.step()
        # A key's bias shifts all scores of a row alike and a bias before a batch norm is subtracted again: those are
        # zero by their mathematics. Matrices and kernels are not.
        assert [name for name, p in live.items() if p.ndim > 1 and not p.grad.any()] == []


@of(PAPER)
def test_a_training_step_lowers_the_loss(build):
    network = make(build).eval()  # without dropout, so that the two losses compare
    target = torch.zeros(2, 1, 64, 96)
    target[:, :, :32] = 1
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = binary_cross_entropy_with_logits(network(*inputs(build)).logits, target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


@of(pytest.param(name, marks=() if name in EXPORTED else pytest.mark.slow) for name in BUILDS)
def test_onnx_graph_agrees(build, shared, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from textray.export.segmenter import write_graph
    from textray.preprocess import Preprocess

    text = (build.tokens, WIDTH) if build.reads_text else None
    write_graph(shared, tmp_path / "model.onnx", Preprocess(size=build.size), text)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    further = ["denied"] if shared.reads_denial else []
    assert names == (["image", "text_features", "text_mask"] if text else ["image"]) + further
    for rows, written in ((1, True), (2, True), (3, True), (3, False)):  # the batch is free
        given = inputs(build, seed=rows, rows=rows)
        if not written and text and not build.facts.needs_text:
            given[2][2] = -1  # nor is a report written for the third, which has none
        given = (*given, *denials(shared, rows).values())
        with torch.no_grad():
            output = shared(*given)
        wanted = {name: getattr(output, name) for name in shared.outputs if getattr(output, name) is not None}
        found = session.run(list(wanted), dict(zip(names, (g.numpy() for g in given), strict=True)))
        for (name, values), value in zip(wanted.items(), found, strict=True):
            values = values[0] if name == "attention" else values
            np.testing.assert_allclose(value, values.numpy(), atol=1e-4, rtol=1e-4)


@of(name for name, found in BUILDS.items() if found.reads_text)
class TestReportContract:
    """What a network that reads a report promises besides."""

    def test_mask_may_be_bool_float_or_missing(self, build, shared):
        image, features, mask = inputs(build)
        assert torch.equal(run(shared, image, features, mask), run(shared, image, features, mask > 0))
        assert torch.equal(run(shared, image, features), run(shared, image, features, torch.ones_like(mask)))

    def test_a_text_that_does_not_fit_is_refused(self, build, shared):
        image, features, mask = inputs(build)
        for wrong in (features[..., :-1], features[:1], features[0]):
            with pytest.raises(ShapeError, match=rf"text features do not fit.*Expected \(2, L, {WIDTH}\).*encoder"):
                shared(image, wrong, mask)
        for wrong in (mask[:, :-1], mask[:1], mask[..., None]):
            with pytest.raises(ShapeError, match=rf"text mask does not fit.*Expected \(2, {build.tokens}\)"):
                shared(image, features, wrong)


@of(name for name in PAPER if BUILDS[name].reads_text)
class TestPaperForms:
    def test_padding_is_never_read(self, build, shared):
        image, features, mask = inputs(build, rows=3)
        other = torch.where(mask[..., None] > 0, features, 1e3 * torch.randn_like(features))
        assert torch.equal(run(shared, image, features, mask), run(shared, image, other, mask))

    def test_more_padding_changes_nothing_until_there_is_no_room(self, build, shared):
        image, features, mask = inputs(build)

        def padded(tokens):
            more = tokens - build.tokens
            return image, pad(features, (0, 0, 0, more)), pad(mask, (0, more))

        most = shared.most_tokens
        long = run(shared, *padded(200 if most is None else most))
        torch.testing.assert_close(run(shared, image, features, mask), long, rtol=1e-4, atol=1e-5)
        if most is not None:
            message = f"too long.*Got {most + 1} tokens.*at most {most}.*max_tokens"
            with pytest.raises(ShapeError, match=message):
                shared(*padded(most + 1))

    def test_a_row_without_text_is_the_text_free_call(self, build, shared):
        image, features, mask = inputs(build, rows=3)
        mixed, free = run(shared, image, features, mask), run(shared, image)
        torch.testing.assert_close(mixed[2], free[2], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(mixed[0], free[0], rtol=1e-4, atol=1e-5)


@of(name for name in BUILDS if BUILDS[name].released)
class TestReleasedForms:
    def test_another_size_is_refused(self, build, shared):
        for size in ((192, 224), (448, 448)):
            with pytest.raises(ShapeError, match=r"one size.*Expected \(B, 3, 224, 224\).*paper form") as refused:
                shared(*inputs(build, size=size))
            assert str((2, 3, *size)) in str(refused.value)

    def test_no_text_is_refused(self, build, shared):
        image, features, mask = inputs(build, rows=3)
        with pytest.raises(ShapeError, match=r"released forms need a text.*whole batch.*paper form"):
            shared(image)
        mask[1] = 0
        with pytest.raises(ShapeError, match=r"released forms need a text.*rows \[1\]"):
            shared(image, features, mask)
        assert not hasattr(shared, "no_report")

    def test_another_number_of_tokens_is_refused_where_it_is_fixed(self, build, shared):
        for tokens in (build.tokens - 1, build.tokens + 1):
            given = inputs(build, tokens=tokens)
            if shared.tokens is None:
                assert run(shared, *given).shape == (2, 1, 224, 224)
                continue
            message = rf"exactly {build.tokens} text tokens.*Got \(2, {tokens}, 8\).*max_tokens={build.tokens}"
            with pytest.raises(ShapeError, match=message):
                shared(*given)

    def test_padding_is_attended(self, build, shared):
        image, features, mask = inputs(build)
        wanted = run(shared, image, features, mask)
        changed = run(shared, image, torch.where(mask[..., None] > 0, features, features + 1), mask)
        assert torch.equal(wanted, run(shared, image, features))
        assert torch.equal(wanted[0], changed[0])  # has no padding
        assert not torch.equal(wanted[1], changed[1])

    def test_dead_parameters_change_nothing(self, build, shared):
        other = make(build).eval()
        other.load_state_dict(shared.state_dict())
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                if name.startswith(other.dead):
                    parameter.fill_(torch.nan)
        assert torch.equal(run(other, *inputs(build)), run(shared, *inputs(build)))


IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]])
WORD = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, 1, -1, -1]])
TEXTS = (IDS, (IDS > 0).long(), WORD, torch.where(WORD >= 0, 0, -1))


def images(rows=2):
    return torch.randn(rows, 3, 64, 96, generator=torch.Generator().manual_seed(rows))


@of(GROUNDING)
class TestGroundingContract:
    def test_row_states_facts(self, build, shared):
        row = registry.model(build.row)
        assert shared.size_multiple == build.facts.size_multiple
        assert build.facts.needs_text
        assert row.reads == ("image", "text")
        assert (ROOT / row.card).is_file()

    def test_unknown_fields_are_refused(self, build):
        with pytest.raises(UsageError, match=r"text\.depth"):
            read_network(build.facts, {**build.config, "text": {"depth": 3}})

    def test_both_sides_come_to_one_space(self, shared):
        with torch.no_grad():
            image, text = shared.encode_image(images()), shared.encode_text(*TEXTS)
        assert image.pooled.shape == text.report.shape == (2, shared.width)
        assert image.local.shape[:2] == (2, shared.width)
        assert text.words.shape == (2, 2, shared.width)
        assert text.sentences.shape == (2, 1, shared.width)
        assert text.word_mask.all()
        assert text.sentence_mask.all()
        assert all(torch.isfinite(x).all() for x in (*image, *text))
        with torch.no_grad():  # and are compared there: a cosine for each phrase and place
            found, own = shared(images(), text.report), shared(images(), text.report.expand(2, -1, -1))
        assert found.shape == (2, 2, *image.local.shape[2:])
        assert found.abs().max() <= 1 + 1e-5
        torch.testing.assert_close(found, own)

    def test_rows_of_a_batch_do_not_see_each_other(self, shared):
        with torch.no_grad():
            together, alone = shared.encode_image(images()), shared.encode_image(images()[1:])
            text, one = shared.encode_text(*TEXTS), shared.encode_text(*(x[1:, :4] for x in TEXTS))
        torch.testing.assert_close(together.local[1:], alone.local, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.pooled[1:], alone.pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(text.report[1:], one.report, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("shape", [(1, 3, 64, 65), (1, 3, 60, 64), (1, 1, 64, 64)], ids=str)
    def test_another_image_is_refused(self, shared, shape):
        with pytest.raises(ShapeError, match=rf"Expected \(B, 3, H, W\).*multiples of {shared.size_multiple}"):
            shared.encode_image(torch.zeros(shape))

    def test_saved_state_gives_the_same_output(self, build, shared, tmp_path):
        file = tmp_path / "model.safetensors"
        save_file(shared.state_dict(), str(file))
        again = make(build, seed=99).eval()
        with torch.no_grad():
            phrases = shared.encode_text(*TEXTS).report
            wanted = shared(images(), phrases)
            assert not torch.equal(again(images(), phrases), wanted)
            again.load_state_dict(load_file(file), strict=True)
            assert torch.equal(again(images(), again.encode_text(*TEXTS).report), wanted)

    def test_every_trainable_parameter_learns(self, build):
        network = make(build).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        for _ in range(2):  # ResNet's residual branches start at zero
            optimizer.zero_grad()
            image, text = network.encode_image(images(3)), network.encode_text(*TEXTS)
            sum(x.square().mean() for x in (*image, text.report)).backward()
            named = dict(network.named_parameters())
            assert [n for n, p in named.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
            optimizer.step()
        assert [n for n, p in named.items() if p.ndim > 1 and not p.grad.any()] == []
