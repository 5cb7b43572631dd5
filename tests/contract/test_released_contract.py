"""What every released form promises, tried on a small trunk; the other forms' contract stands beside this one.

Released forms know one size, need a text for every image, attend padding, and carry weights that nothing reads.
"""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from textray import registry
from textray.errors import ShapeError
from textray.models.base import Output

ROOT = Path(__file__).parents[2]
WIDTH = 8
TOKENS = 24
CONFIG = {"trunk": "convnext_atto", "text_width": WIDTH}
CONFIGS = {
    "mmi_unet": CONFIG,
    "mmi_unet_gd": CONFIG,
    "guide_decoder": CONFIG,
    "lvit": {"channels": 8, "text_width": WIDTH, "dropout": 0.0},
}
NAMES = tuple(CONFIGS)


def make(name, seed=0):
    row = registry.model(name).form("released")
    torch.manual_seed(seed)
    return registry.load(row.path)(registry.load(row.config)(**CONFIGS[name]))


def batch(network, seed=0, rows=2, tokens=None):
    """Images and texts, the second with two real tokens only."""
    tokens = tokens or network.tokens or TOKENS
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, tokens)
    mask[1:, 2:] = 0
    image = torch.randn(rows, 3, 224, 224, generator=generator)
    return image, torch.randn(rows, tokens, WIDTH, generator=generator), mask


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    """In evaluation mode, with norms that have seen images; not to be changed."""
    network = make(name)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # take the statistics of what it sees
    with torch.no_grad():
        network.train()(*batch(network, seed=7))
        for part, parameter in network.named_parameters():
            if part.endswith("gamma"):
                parameter.fill_(0.1)  # a trunk without weights hardly changes what it reads
    return network.eval()


def run(network, *given):
    with torch.no_grad():
        return network(*given).logits


def test_every_released_form_is_tried():
    forms = {(row.name, form.name) for row in registry.MODELS.values() for form in row.forms}
    assert {row for row, form in forms if form == "released"} == set(NAMES)


def test_row_states_facts(name, network):
    row = registry.model(name).form("released")
    assert registry.form_of(type(network)) == (name, "released")
    assert row.needs_text
    assert network.needs_text
    assert row.size == (224, 224)
    assert row.tokens == network.tokens
    assert row.size_multiple == network.size_multiple
    assert "## Released form" in (ROOT / registry.model(name).card).read_text(encoding="utf-8")
    with pytest.raises(FrozenInstanceError):
        network.config.trunk = "another"


def test_forward_gives_a_score_per_pixel(network):
    output = network(*batch(network))
    assert isinstance(output, Output)
    assert output.logits.shape == (2, 1, 224, 224)
    assert output.logits.dtype == torch.float32
    assert torch.isfinite(output.logits).all()


def test_logits_are_raw_scores(name, network):
    """Moving the last layer must not be squashed by a sigmoid in the network."""
    other = make(name).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        last = [m for m in other.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 1][-1]
        last.bias += 30
    torch.testing.assert_close(run(other, *batch(network)), run(network, *batch(network)) + 30, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(192, 224), (224, 256), (448, 448)], ids=str)
def test_another_size_is_refused(network, size):
    with pytest.raises(ShapeError, match=r"one size.*Expected \(B, 3, 224, 224\).*paper form") as refused:
        network(torch.zeros(1, 3, *size), *batch(network)[1:])
    assert str((1, 3, *size)) in str(refused.value)


@pytest.mark.parametrize("shape", [(1, 1, 224, 224), (3, 224, 224), (1, 3, 225, 224)], ids=str)
def test_another_image_is_refused(network, shape):
    with pytest.raises(ShapeError, match="cannot run on this image"):
        network(torch.zeros(shape), *batch(network)[1:])


def test_no_text_is_refused(name, network):
    image, features, mask = batch(network, rows=3)
    with pytest.raises(ShapeError, match=r"released forms need a text.*whole batch.*paper form"):
        network(image)
    mask[1] = 0
    with pytest.raises(ShapeError, match=r"released forms need a text.*rows \[1\]"):
        network(image, features, mask)
    assert not hasattr(network, "no_report")


def test_another_number_of_tokens_is_refused_where_it_is_fixed(network):
    wanted = network.tokens or TOKENS
    for tokens in (wanted - 1, wanted + 1):
        given = batch(network, tokens=tokens)
        if network.tokens is None:
            assert run(network, *given).shape == (2, 1, 224, 224)
            continue
        told = rf"exactly {wanted} text tokens.*Got \(2, {tokens}, 8\).*max_tokens={wanted}"
        with pytest.raises(ShapeError, match=told):
            network(*given)


def test_a_text_that_does_not_fit_is_refused(network):
    image, features, mask = batch(network)
    for wrong in (features[..., :-1], features[:1], features[0]):
        with pytest.raises(ShapeError, match="text features do not fit"):
            network(image, wrong, mask)
    with pytest.raises(ShapeError, match="text mask does not fit"):
        network(image, features, mask[:, :-1])


def test_padding_is_attended_and_the_mask_tells_only_text_from_no_text(network):
    image, features, mask = batch(network)
    other = torch.where(mask[..., None] > 0, features, features + 1)
    wanted = run(network, image, features, mask)
    assert torch.equal(wanted, run(network, image, features))
    assert torch.equal(wanted, run(network, image, features, mask > 0))
    changed = run(network, image, other, mask)
    assert torch.equal(wanted[0], changed[0])  # has no padding
    assert not torch.equal(wanted[1], changed[1])


def test_image_and_text_matter_to_their_own_row(network):
    image, features, mask = batch(network)
    other, told = image.clone(), features.clone()
    other[1, :, 100, 100] += 10
    told[1] = told[1].flip(1)
    wanted = run(network, image, features, mask)
    for given in ((other, features, mask), (image, told, mask)):
        found = run(network, *given)
        assert torch.equal(found[0], wanted[0])
        assert (found[1] - wanted[1]).abs().max() > 1e-6
    alone = run(network, image[1:], features[1:], mask[1:])
    torch.testing.assert_close(alone, wanted[1:], rtol=1e-4, atol=1e-5)


def test_saved_state_gives_the_same_output(name, network, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), str(file))
    again = make(name, seed=99).eval()
    given, wanted = batch(network), run(network, *batch(network))
    assert not torch.equal(run(again, *given), wanted)
    again.load_state_dict(load_file(file), strict=True)
    assert torch.equal(run(again, *given), wanted)


def test_every_live_parameter_learns_and_no_dead_one_does(name):
    network = make(name).train()
    parameters = dict(network.named_parameters())
    assert [prefix for prefix in network.dead if not any(n.startswith(prefix) for n in parameters)] == []
    network(*batch(network)).logits.square().mean().backward()
    dead = {n for n in parameters if n.startswith(network.dead)}
    assert {n for n, p in parameters.items() if p.grad is None} == dead
    assert [n for n, p in parameters.items() if n not in dead and not torch.isfinite(p.grad).all()] == []
    # Biases before a norm and of keys are zero by their mathematics; matrices and kernels are not.
    assert [n for n, p in parameters.items() if n not in dead and p.ndim > 1 and not p.grad.any()] == []


def test_dead_parameters_change_nothing(name, network):
    other = make(name)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        for part, parameter in other.named_parameters():
            if part.startswith(other.dead):
                parameter.fill_(torch.nan)
    assert torch.equal(run(other.eval(), *batch(network)), run(network, *batch(network)))


@pytest.mark.slow
def test_onnx_graph_agrees(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from textray.export.segmenter import write_graph
    from textray.preprocess import Preprocess

    write_graph(network, tmp_path / "model.onnx", Preprocess(size=(224, 224)), (network.tokens or TOKENS, WIDTH))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    assert names == ["image", "text_features", "text_mask"]
    for rows in (1, 3):  # the batch is free
        given = batch(network, seed=rows, rows=rows)
        found = session.run(["logits"], dict(zip(names, (g.numpy() for g in given), strict=True)))[0]
        np.testing.assert_allclose(found, run(network, *given).numpy(), atol=1e-4, rtol=1e-4)
