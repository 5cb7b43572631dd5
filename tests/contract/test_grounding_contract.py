"""What every grounding row of the registry promises, tried on small builds of it.

A row that is added without a small build here fails `test_every_row_is_tried`.
"""

from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from textray import registry
from textray.errors import ShapeError, UsageError
from textray.models.build import build as read_network

ROOT = Path(__file__).parents[2]
OWN = {"pieces": 30, "width": 8, "layers": 2, "heads": 2, "feed_forward": 12, "positions": 16}
TEXT = {"encoder": "own", "last_layers": 1, "own": OWN}
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]])
WORD = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, 1, -1, -1]])
SENTENCE = torch.where(WORD >= 0, 0, -1)
TEXTS = (IDS, (IDS > 0).long(), WORD, SENTENCE)


@dataclass(frozen=True, kw_only=True)
class Build:
    """A small build of a row."""

    row: str
    config: dict[str, Any]
    form: str = "paper"

    @property
    def facts(self):
        return registry.model(self.row).form(self.form)


LITE = {"trunk": "efficientnet_lite0", "enlarge": None, "local_stage": 2, "width": 6, "text": TEXT}
FACTORED = {**LITE, "local": "factored", "pooled": "places", "finer": True, "merge": 2}
TINY = {"encoder": "tiny", "last_layers": 2}
CONVNEXT = {"trunk": "convnext_atto", "enlarge": None, "positions": True, "text": TINY}
BUILDS = {
    "sentence_grounding-resnet": Build(
        row="sentence_grounding", config={"trunk": "resnet10t", "enlarge": 80, "text": TEXT}
    ),
    "sentence_grounding-efficientnet": Build(row="sentence_grounding", config=LITE),
    "sentence_grounding-convnext": Build(row="sentence_grounding", config=CONVNEXT),
    "sentence_grounding-factored": Build(row="sentence_grounding", config=FACTORED),
}


def make(build, seed=0):
    torch.manual_seed(seed)
    return read_network(build.facts, build.config)


@pytest.fixture(scope="module", params=BUILDS, ids=str)
def build(request):
    return BUILDS[request.param]


@pytest.fixture(scope="module")
def shared(build):
    """A network in evaluation mode; not to be changed."""
    return make(build).eval()


def images(rows=2, size=(64, 96)):
    return torch.randn(rows, 3, *size, generator=torch.Generator().manual_seed(rows))


def test_every_row_is_tried():
    wanted = {
        (row.name, form.name) for row in registry.MODELS.values() if row.task == "grounding" for form in row.forms
    }
    assert {(b.row, b.form) for b in BUILDS.values()} == wanted


class TestGroundingContract:
    def test_row_states_facts(self, build, shared):
        row = registry.model(build.row)
        assert shared.size_multiple == build.facts.size_multiple
        assert build.facts.needs_text
        assert row.reads == ("image", "text")
        assert (ROOT / row.card).is_file()

    def test_config_is_one_frozen_dataclass_with_defaults(self, build, shared):
        config = registry.load(build.facts.config)
        assert is_dataclass(config)
        assert isinstance(shared.config, config)
        with pytest.raises(FrozenInstanceError):
            setattr(shared.config, fields(config)[0].name, None)

    def test_unknown_fields_are_refused(self, build):
        with pytest.raises(UsageError, match=r"text\.depth"):
            read_network(build.facts, {**build.config, "text": {"depth": 3}})

    def test_both_sides_come_to_one_space(self, shared):
        with torch.no_grad():
            seen, told = shared.encode_image(images()), shared.encode_text(*TEXTS)
        assert seen.pooled.shape == told.report.shape == (2, shared.width)
        assert seen.local.shape[:2] == (2, shared.width)
        assert told.words.shape == (2, 2, shared.width)
        assert told.sentences.shape == (2, 1, shared.width)
        assert told.word_mask.all()
        assert told.sentence_mask.all()
        assert all(torch.isfinite(x).all() for x in (*seen, *told))
        with torch.no_grad():  # and are compared there: a cosine for each phrase and place
            found, own = shared(images(), told.report), shared(images(), told.report.expand(2, -1, -1))
        assert found.shape == (2, 2, *seen.local.shape[2:])
        assert found.abs().max() <= 1 + 1e-5
        torch.testing.assert_close(found, own)

    def test_rows_of_a_batch_do_not_see_each_other(self, shared):
        with torch.no_grad():
            together, alone = shared.encode_image(images()), shared.encode_image(images()[1:])
            told, one = shared.encode_text(*TEXTS), shared.encode_text(*(x[1:, :4] for x in TEXTS))
        torch.testing.assert_close(together.local[1:], alone.local, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.pooled[1:], alone.pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(told.report[1:], one.report, rtol=1e-4, atol=1e-5)

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
            seen, told = network.encode_image(images(3)), network.encode_text(*TEXTS)
            sum(x.square().mean() for x in (*seen, told.report)).backward()
            named = dict(network.named_parameters())
            assert [n for n, p in named.items() if p.grad is None or not torch.isfinite(p.grad).all()] == []
            optimizer.step()
        assert [n for n, p in named.items() if p.ndim > 1 and not p.grad.any()] == []
