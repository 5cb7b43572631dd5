"""The compared methods: their sizes, and how published tensors come into them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from textray import registry
from textray.errors import BundleError, ShapeError
from textray.models.baselines.clip import CLIP, CLIPConfig
from textray.models.baselines.lavt import LAVT, LAVTConfig
from textray.models.baselines.nnunet import NNUNet, NNUNetConfig
from textray.models.baselines.swin_unet import SwinUNet, SwinUNetConfig
from textray.models.baselines.transunet import TransUNet, TransUNetConfig
from textray.models.baselines.vilt import ViLT, ViLTConfig
from textray.nn.swin import SwinSizes

PARAMETERS = {
    "unet_plus_plus": 9_119_233,
    "attention_unet": 31_740_337,
    "nnunet": 20_612_164,
    "swin_unet": 34_274_101,
    "transunet": 105_278_897,
    "uctransnet": 66_430_657,
    "clip": 98_042_145,
    "clip_text": 98_829_601 + 768,  # the no-report token
    "gloria": 31_482_257 + 768,
    "convirt": 30_564_753,
    "tganet": 33_671_195,
    "vilt": 96_094_113 + 768,
    "lavt": 116_614_073,
}
SWIN = SwinSizes(width=8, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), window=2, size=(32, 32), weights="swin.safetensors")
HYBRID = TransUNetConfig(
    trunk_weights="hybrid.safetensors", size=(32, 32), layers=(1, 1, 1), channels=(128, 128, 128), width=16, depth=1,
    heads=2, decoder_channels=(8, 8, 8, 4),
)  # fmt: skip
VIT = CLIPConfig(trunk_weights="clip.safetensors", size=(32, 32), width=8, depth=4, heads=2, decoder_channels=(4, 4, 4))
VILT = ViLTConfig(
    trunk_weights="vilt.safetensors", size=(64, 64), text_width=6, width=8, depth=4, heads=2,
    decoder_channels=(4, 4, 4, 4, 4),
)  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    with torch.device("meta"):
        network = registry.load(registry.model(name).form().path)()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def published(network):
    """Random tensors by the names that timm publishes, with a classifier's, which no trunk has."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(network, SwinUNet):  # published before timm moved a stage's reduction to the next one
        tensors = {
            name.replace("layers.1.down", "layers.0.down").replace("layers.2.down", "layers.1.down")
            .replace("layers.3.down", "layers.2.down"): tensor
            for name, tensor in network.trunk.swin.state_dict().items()
        }  # fmt: skip
    elif isinstance(network, CLIP):
        tensors = network.trunk.vit.state_dict()
    elif isinstance(network, ViLT):
        tensors = {
            "vilt.embeddings.cls_token": network.trunk.first,
            "vilt.embeddings.position_embeddings": network.trunk.positions,
            "vilt.embeddings.patch_embeddings.projection.weight": network.trunk.patch.weight,
            "vilt.embeddings.patch_embeddings.projection.bias": network.trunk.patch.bias,
            "vilt.embeddings.token_type_embeddings.weight": network.trunk.kinds.weight,
            **{f"vilt.encoder.{name}": tensor for name, tensor in network.trunk.encoder.state_dict().items()},
            "vilt.layernorm.weight": network.trunk.norm.weight,
            "vilt.layernorm.bias": network.trunk.norm.bias,
        }
    else:
        tensors = {f"patch_embed.backbone.{name}": t for name, t in network.trunk.backbone.state_dict().items()}
        tensors |= network.trunk.vit.state_dict()
    return {name: torch.randn(t.shape, generator=generator) for name, t in tensors.items()} | {
        "head.weight": torch.zeros(2, 2)
    }


@pytest.mark.parametrize(
    ("kind", "config", "file", "one"),
    [
        (SwinUNet, SwinUNetConfig(trunk=SWIN), "swin.safetensors", "layers.2.blocks.0.mlp.fc1.weight"),
        (TransUNet, HYBRID, "hybrid.safetensors", "patch_embed.backbone.stages.0.blocks.0.conv1.weight"),
        (CLIP, VIT, "clip.safetensors", "norm_pre.weight"),
        (ViLT, VILT, "vilt.safetensors", "vilt.encoder.layer.1.attention.attention.query.weight"),
    ],
)
def test_published_tensors_are_read_by_name(kind, config, file, one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = kind(config)
    tensors = published(network)
    save_file(tensors, file)
    network.load_pretrained()
    held = [t for name, t in network.trunk.state_dict().items()]
    given = [t for name, t in tensors.items() if name != "head.weight"]
    assert len(held) == len(given)
    assert all(any(torch.equal(h, g) for g in given if g.shape == h.shape) for h in held)
    wrong = tensors | {one: torch.zeros(3)}
    save_file(wrong, file)
    with pytest.raises(BundleError, match=rf"tensor '{one}' of {file} does not fit.*\(3,\)"):
        network.load_pretrained()
    save_file({name: t for name, t in tensors.items() if name != one}, file)
    with pytest.raises(BundleError, match=rf"tensor '{one}' of {file} does not fit.*no such tensor"):
        network.load_pretrained()


class TestNNUNet:
    def test_a_single_coarsest_place_is_refused(self):
        network = NNUNet(NNUNetConfig(width=2)).eval()
        with pytest.raises(ShapeError, match="at least 64"):
            network(torch.zeros(1, 3, 32, 32))

    def test_coarser_levels_are_for_training_only(self):
        network = NNUNet(NNUNetConfig(width=2, levels=6))
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        deep = network(image).deep
        assert [found.shape for found in deep] == [(1, 1, 64, 64)] * 3
        for factor, found in zip((2, 4, 8), deep, strict=True):  # each logit stands for factor x factor pixels
            blocks = found[..., ::factor, ::factor].repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            assert torch.equal(found, blocks)
        assert network.eval()(image).deep is None


def test_lavt_without_a_report_reads_the_image():
    """Without a report LAVT still reads the image: what it gathers from words is 1 there, not 0."""
    torch.manual_seed(0)
    network = LAVT(LAVTConfig(trunk=replace(SWIN, weights=None), text_width=6, decoder_channels=8)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = network(images).logits
        assert (found[0] - found[1]).abs().max() > 1e-6
        assert torch.equal(network(images, torch.randn(2, 3, 6), torch.zeros(2, 3)).logits, found)
        assert not torch.equal(network(images, torch.randn(2, 3, 6), torch.ones(2, 3)).logits, found)
