"""Released forms: what they count, and that they compute what the authors' released codes compute.

The golden logits were computed with the released codes, from tensors and inputs that a formula fills.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from textray import registry
from textray.errors import UsageError
from textray.models.build import build
from textray.models.released import keys

LISTS = Path(__file__).parents[3] / "shared" / "specs" / "released-keys.json"
TITLES = {
    "mmi_unet": "MMI-UNet",
    "mmi_unet_gd": "MMI-UNet with GuideDecoder",
    "guide_decoder": "GuideDecoder (LanGuideMedSeg)",
    "lvit": "LViT",
}
COUNTS = {
    "mmi_unet": (56_174_682, 49_472_217),
    "mmi_unet_gd": (65_755_649, 56_214_177),
    "guide_decoder": (43_951_393, 42_176_545),
    "lvit": (39_933_345, 29_908_033),
}
"""Trainable parameters, and those of them that anything depends on."""

PLACES = ((0, 0), (10, 200), (111, 57), (160, 160), (223, 223))
GOLDEN = {
    "mmi_unet": (-0.11616, 0.56347, (0.11204, -0.58193, -0.43792, -0.70139, 0.17049)),
    "mmi_unet_gd": (-0.21440, 0.36739, (0.07234, 0.01079, -0.84485, -0.39982, -0.13652)),
    "guide_decoder": (-0.17521, 0.39318, (0.01141, 0.05577, -0.31593, -0.33661, -0.21688)),
    "lvit": (-45.62532, 75.79855, (-58.95463, -97.81190, -78.66874, -45.90782, 27.04879)),
}
"""Mean and standard deviation of the logits, and the logits at `PLACES`."""


@pytest.fixture(params=GOLDEN)
def name(request):
    return request.param


def draw(size, k):
    """Numbers in [-0.5, 0.5) that look random: the k-th row of a formula."""
    wave = 43758.5453 * np.sin(12.9898 * np.arange(1, size + 1) + 78.233 * (k + 1))
    return wave - np.floor(wave) - 0.5


def fill(published_name, shape, k):
    """The k-th tensor of a published list."""
    u = draw(int(np.prod(shape)), k).reshape(shape)
    if published_name.endswith("running_var"):
        u = 1 + 0.5 * (u + 0.5)
    elif not shape:
        u = np.array(0.5)
    elif published_name.endswith("gamma"):
        u = 0.5 + 0.2 * u
    elif len(shape) == 1 and published_name.endswith("weight"):
        u = 1 + 0.2 * u
    elif len(shape) > 1:
        u = u * np.sqrt(24 / np.prod(shape[1:]))
    else:
        u = 0.2 * u
    return torch.from_numpy(u.astype(np.float32))


def test_every_published_tensor_is_ours_or_a_table_of_sines(name):
    with torch.device("meta"):  # sizes without memory
        network = build(registry.model(name).form("released"), {})
    counts = {n: p.numel() for n, p in network.named_parameters() if p.requires_grad}
    live = sum(count for n, count in counts.items() if not n.startswith(network.dead))
    assert (sum(counts.values()), live) == COUNTS[name]
    own = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    mapped, dropped = {}, []
    for published_name, shape in keys.published(name).items():
        ours = keys.own_name(name, published_name)
        if ours is None:
            dropped.append(published_name)
        else:
            assert ours not in mapped
            mapped[ours] = shape
    assert mapped == own
    assert all(n.endswith(("vis_pos.pe", "txt_pos.pe")) for n in dropped)
    assert len(dropped) == (0 if name in ("mmi_unet", "lvit") else 6)
    prefix = keys.text_encoder_prefix(name)
    assert prefix == (None if name == "lvit" else f"{keys.LIGHTNING_PREFIX}text_encoder.model.")
    assert prefix is None or not any(n.startswith(prefix) for n in keys.published(name))


def test_golden_logits(name):
    np.testing.assert_allclose(draw(5, 0), [0.24008482, 0.06439513, -0.04525074, -0.22759926, 0.32344871], atol=1e-8)
    network = build(registry.model(name).form("released"), {}).eval()
    own, state = network.state_dict(), {}
    for k, (published_name, shape) in enumerate(keys.published(name).items()):
        ours = keys.own_name(name, published_name)
        if ours is not None:
            state[ours] = fill(published_name, shape, k) if own[ours].is_floating_point() else own[ours]
    network.load_state_dict(state, strict=True)
    image = torch.from_numpy((4 * draw(3 * 224 * 224, 1000)).astype(np.float32)).reshape(1, 3, 224, 224)
    features = torch.from_numpy((4 * draw(24 * 768, 1001)).astype(np.float32)).reshape(1, 24, 768)
    features = features[:, : network.tokens]
    with torch.no_grad():
        logits = network(image, features, torch.ones(features.shape[:2])).logits[0, 0].double().numpy()
    mean, std, values = GOLDEN[name]
    found = [logits.mean(), logits.std(), *(logits[place] for place in PLACES)]
    np.testing.assert_allclose(found, [mean, std, *values], rtol=0, atol=1e-3 * std)


def test_the_scale_starts_where_each_code_starts_it():
    for name, scale in (("guide_decoder", 1.421), ("mmi_unet_gd", 0.01)):
        small = {"trunk": "convnext_atto", "text_width": 8}
        found = [level.guide.scale.item() for level in build(registry.model(name).form("released"), small).decoder]
        assert found == pytest.approx([scale] * 3)


def test_lists_are_the_published_ones(name):
    if not LISTS.is_file():
        pytest.skip("the published lists are not on this machine")
    lists = json.loads(LISTS.read_text(encoding="utf-8"))
    wanted = [(n, tuple(shape)) for n, shape in lists[TITLES[name]]["tensors"].items()]
    assert list(keys.published(name).items()) == wanted


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match=r"unknown published network 'mmi_unett'.*'mmi_unet'"):
        keys.published("mmi_unett")
    with pytest.raises(UsageError, match=r"unknown tensor of the published mmi_unet 'model\.norm\.wieght'"):
        keys.own_name("mmi_unet", "model.norm.wieght")
