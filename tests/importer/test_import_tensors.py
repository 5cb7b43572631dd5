"""Every tensor of a published checkpoint finds its place, or the file is refused."""

import pytest

pytest.importorskip("torch")
import torch

from textray.errors import InputError
from textray.export import published as convert
from textray.export.conventions import CONVENTIONS
from textray.export.unpickle import Published
from textray.models.released.keys import own_name, published


def fake(tmp_path, tensors):
    """What a child would have read: tensors by published names."""
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "t.safetensors")
    return Published(
        name="a.ckpt", tensors=tmp_path / "t.safetensors", skipped=(), other=(), facts={}, sha256="", nbytes=0
    )


@pytest.fixture
def small(monkeypatch):
    """A published network of three tensors."""
    wanted = {"model.a.weight": (2, 3), "model.a.bias": (2,), "model.table.pe": (1, 4)}
    names = {"model.a.weight": "b.weight", "model.a.bias": "b.bias", "model.table.pe": None}
    monkeypatch.setattr(convert, "published", lambda name: wanted)
    monkeypatch.setattr(convert, "own_name", lambda name, key: names[key])
    return {key: torch.ones(shape) for key, shape in wanted.items()}


def test_tensors_are_sorted_by_name(small, tmp_path):
    tensors, mapped = convert._sort("mmi_unet", fake(tmp_path, small | {"model.text_encoder.model.x": torch.ones(1)}))
    assert mapped == {"model.a.weight": "b.weight", "model.a.bias": "b.bias", "model.table.pe": None}
    assert "model.text_encoder.model.x" in tensors


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model.a.bias": None}, r"1 missing: model\.a\.bias"),
        ({"model.c": torch.ones(1)}, r"1 unknown: model\.c"),
        ({"model.a.weight": torch.ones(3, 2)}, r"1 of another shape: model\.a\.weight \(3, 2\) for \(2, 3\)"),
        ({"model.a.weight": torch.full((2, 3), torch.nan)}, "not finite"),
        ({"model.a.weight": torch.full((2, 3), 1e9)}, "too large for half precision"),
    ],
)
def test_other_tensors_are_refused_by_name(small, tmp_path, change, told):
    given = {key: value for key, value in (small | change).items() if value is not None}
    with pytest.raises(InputError, match=told) as caught:
        convert._sort("mmi_unet", fake(tmp_path, given))
    assert (caught.value.code, caught.value.exit_code) == ("E_KEYS", 3)


def test_the_published_names_are_mapped_one_to_one():
    for name in CONVENTIONS:
        own = [own_name(name, key) for key in published(name)]
        kept = [key for key in own if key is not None]
        assert len(kept) == len(set(kept))


def test_a_checkpoint_of_another_published_network_is_told_its_name(tmp_path):
    given = {key: torch.zeros(shape) for key, shape in published("guide_decoder").items()}
    with pytest.raises(InputError, match="It is a guide_decoder: name that"):
        convert._sort("mmi_unet", fake(tmp_path, given))
