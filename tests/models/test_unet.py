"""U-Net: the size that the papers compare with, and its levels."""

import torch

from textray.models.baselines.unet import UNet, UNetConfig


def test_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet().parameters()) == 14_751_873


def test_levels():
    network = UNet(UNetConfig(width=4)).eval()
    shapes = []
    for part in (network.first, *network.down, *network.up):
        part.register_forward_hook(lambda _, given, found: shapes.append(tuple(found.shape[1:])))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 48))
    assert shapes == [
        (4, 32, 48), (8, 16, 24), (16, 8, 12), (32, 4, 6), (32, 2, 3),
        (16, 4, 6), (8, 8, 12), (4, 16, 24), (4, 32, 48),
    ]  # fmt: skip


def test_report_is_ignored():
    network = UNet(UNetConfig(width=4)).eval()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(image).logits, network(image, torch.randn(1, 2, 9), torch.ones(1, 2)).logits)
