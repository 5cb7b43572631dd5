import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from textray.errors import BundleError, UsageError
from textray.inference import bundle as bundle_module
from textray.inference.bundle import Bundle, seal

FILES = "model.onnx", "model.safetensors", "text_bank.safetensors", "preprocess.json", "README.md", "LICENSE"


@pytest.fixture
def copy(changed, tiny_bundle):
    return changed(tiny_bundle)


def test_a_bundle_says_what_it_is(tiny_bundle):
    bundle = Bundle.load(tiny_bundle)
    assert (bundle.name, bundle.model, bundle.text_encoder) == ("tiny", "mmi_unet", "tiny")
    assert bundle.preprocess.size == (64, 64)
    assert (bundle.tokens, bundle.width) == (2, 6)
    assert bundle.zone_rows == (0.375, 0.55)
    files = [path for path in tiny_bundle.iterdir() if path.name != "config.json"]
    assert bundle.size_bytes == sum(path.stat().st_size for path in files)
    bank = bundle.text_bank()
    assert bank.features.dtype == bank.mask.dtype == np.float32
    assert bank.features[0b100001, 0].tolist() == [1, 0, 0, 0, 0, 1]  # the row of zones is their index


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_altered_cut_off_or_missing_is_refused_by_name(copy, name):
    raw = bytearray((copy / name).read_bytes())
    (copy / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BundleError, match=f"{name} of bundle copy is cut off"):
        Bundle.load(copy)
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(BundleError, match=f"{name} of bundle copy is altered") as caught:
        Bundle.load(copy)
    assert (caught.value.code, caught.value.exit_code) == ("E_BUNDLE", 2)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        Bundle.load(copy)


def test_a_file_altered_after_loading_is_refused_on_use(copy):
    bundle = Bundle.load(copy)
    (copy / "text_bank.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match="cut off"):
        bundle.text_bank()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"format": 2}, r"another format version\. Got 2\. Expected 1"),
        ({"extra": 1}, "unknown \\['extra'\\]"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "high"}, "not laid out"),
        ({"model": "mmi_unet"}, "not laid out"),
        ({"zones": {"rows": [0.6, 0.5], "columns": [0.5]}}, "zone split"),
        ({"files": {"../../secret": {"bytes": 1, "sha256": ""}}}, "lists other files"),
        ({"input": {"height": 32, "width": 64, "channels": 3}}, "contradicts itself"),
        ({"text": {"encoder": "tiny", "tokens": 10**9, "width": 6}}, "impossible size"),
    ],
)
def test_a_config_with_other_contents_is_refused(changed, tiny_bundle, values, text):
    with pytest.raises(BundleError, match=text):
        Bundle.load(changed(tiny_bundle, **values))


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\x80\x04.", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(copy, raw):
    (copy / "config.json").write_bytes(raw)
    with pytest.raises(BundleError, match=r"config\.json is not"):
        Bundle.load(copy)


@pytest.mark.parametrize("what", ["extra", "rows", "mask", "nan", "header"])
def test_sealing_refuses_a_bank_of_another_form(copy, what):
    tensors = load_file(str(copy / "text_bank.safetensors"))
    if what == "extra":
        tensors["more"] = np.zeros(1, np.float32)
    elif what == "rows":
        tensors = {name: values[:63].copy() for name, values in tensors.items()}
    elif what == "mask":
        tensors["mask"] = tensors["mask"] * np.uint8(2)
    else:
        tensors["features"][3] = np.nan
    save_file(tensors, str(copy / "text_bank.safetensors"))
    if what == "header":
        (copy / "text_bank.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(BundleError, match="cannot be read" if what == "header" else r"text_bank\.safetensors"):
        seal(
            copy, name="x", version="0", model="mmi_unet", form="paper", model_config={}, threshold=0.5,
            text_encoder="tiny", provenance={},
        )  # fmt: skip


def test_unknown_names_and_empty_folders_are_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="unknown bundle 'sgseg_light'") as caught:
        Bundle.load("sgseg_light")
    assert "sgseg_lite" in str(caught.value)
    with pytest.raises(BundleError, match="holds no bundle"):
        Bundle.load(tmp_path)
    monkeypatch.setattr(bundle_module, "WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(BundleError, match="not inside this installation"):
        Bundle.load()


def test_weights_inside_are_found_by_name(tiny_bundle, tmp_path, monkeypatch):
    shutil.copytree(tiny_bundle, tmp_path / "sgseg_lite")
    monkeypatch.setattr(bundle_module, "WEIGHTS_FOLDER", tmp_path)
    assert bundle_module.inside() == ["sgseg_lite"]
    assert Bundle.load().folder == Bundle.load("sgseg_lite").folder == tmp_path / "sgseg_lite"
