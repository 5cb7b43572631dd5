"""MMI-UNet, GuideDecoder, and the one with the decoder of the other: counts, the way of the text, sizes."""

import pytest
import torch
from safetensors.torch import save_file

from textray.errors import UsageError
from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.models.mmi_unet_gd import MMIUNetGD, MMIUNetGDConfig

WIDTH = 8
KINDS = {
    "mmi_unet": (MMIUNet, MMIUNetConfig),
    "guide_decoder": (GuideDecoder, GuideDecoderConfig),
    "mmi_unet_gd": (MMIUNetGD, MMIUNetGDConfig),
}
GUIDED = pytest.mark.parametrize("name", ["guide_decoder", "mmi_unet_gd"])
MATCHED = pytest.mark.parametrize("name", ["mmi_unet", "mmi_unet_gd"])


def small(name, **changes):
    torch.manual_seed(0)
    network, config = KINDS[name]
    settings = {"trunk": "convnext_atto", "text_width": WIDTH, "decoder_channels": (8, 12, 16), **changes}
    if name != "guide_decoder":
        settings.setdefault("dropout", 0.0)
    return network(config(**settings)).eval()


def text():
    return torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(1)), torch.ones(2, 4)


def image():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def watch(modules):
    """Record what goes into each module and what comes out, in order of the calls."""
    seen = [[] for _ in modules]
    for module, calls in zip(modules, seen, strict=True):
        module.register_forward_hook(lambda _, given, found, calls=calls: calls.append((given, found)))
    return seen


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):  # sizes without memory
        return {name: network() for name, (network, _) in KINDS.items()}


class TestPaperConfiguration:
    @pytest.mark.parametrize(
        ("name", "total", "token"),
        [("mmi_unet", 51_836_134, 768), ("guide_decoder", 42_176_545, 0), ("mmi_unet_gd", 60_827_265, 768)],
    )
    def test_parameters(self, paper, name, total, token):
        network = paper[name]
        assert count(network) - token == total
        besides = {n: p.numel() for n, p in network.named_parameters(recurse=False)}
        assert besides == ({"no_report": token} if token else {})
        assert (count(network.trunk), count(network.head)) == (27_818_592, 332_185)

    def test_matching_by_stage(self, paper):
        """The last stage goes without the 3,153,536 parameters of a text tail that nothing reads."""
        matching, decoder = paper["mmi_unet"].matching, paper["mmi_unet"].decoder
        assert [count(m) for m in matching] == [422_176, 1_285_696, 4_339_840, 15_756_544 - 3_153_536]
        assert [(m.image.self_attention.heads, m.image.cross_attention.heads) for m in matching] == [(8, 8)] * 4
        assert [level.attention.mix.kernel_size[0] for level in decoder] == [3, 5, 5]
        assert count(decoder) == 5_034_637

    @GUIDED
    def test_guides_by_level(self, paper, name):
        guides, ups = paper[name].decoder.guides, paper[name].decoder.ups
        assert [count(guide) for guide in guides] == [445_858, 1_481_389, 5_322_073]
        assert [count(up) for up in ups] == [322_944, 1_291_008, 5_162_496]
        assert [(g.self_attention.heads, g.cross_attention.heads) for g in guides] == [(1, 4)] * 3
        assert [(g.text.mix.in_features, g.text.mix.out_features) for g in guides] == [(24, 9), (24, 12), (24, 24)]

    @pytest.mark.parametrize(("given", "scale"), [("guide_decoder", 1.421), ("mmi_unet_gd", 0.01)])
    def test_initial_scale(self, given, scale):
        for settings, wanted in (({}, scale), ({"scale": 0.25}, 0.25), ({"scale": 1}, 1.0)):
            guides = small(given, **settings).decoder.guides
            assert [g.scale.item() for g in guides] == pytest.approx([wanted] * 3)
            assert all(g.scale.requires_grad for g in guides)


class TestWayOfImageAndText:
    @MATCHED
    def test_each_residual_counts_once(self, name):
        network, (features, mask) = small(name), text()
        matched, staged = watch(network.matching), watch(network.trunk.stages)
        with torch.no_grad():
            network(image(), features, mask)
        assert torch.equal(matched[0][0][0][1], features)
        for s in range(4):
            assert torch.equal(matched[s][0][0][0], staged[s][0][1])  # F_s
            if s:
                image_delta, text_delta = matched[s - 1][0][1]
                assert image_delta.abs().max() > 0
                assert torch.equal(staged[s][0][0][0], staged[s - 1][0][1] + image_delta)  # F + F^ITM
                assert torch.equal(matched[s][0][0][1], features + text_delta)  # T + T^ITM, not a growing sum
        assert matched[3][0][1][1] is None  # no text tail that nothing reads

    @pytest.mark.parametrize(
        ("name", "skip"),
        [(name, skip) for name in ("mmi_unet", "mmi_unet_gd") for skip in ("itm", "sum")] + [("guide_decoder", None)],
    )
    def test_decoder_reads_the_configured_skip(self, name, skip):
        network, (features, mask) = small(name, **({"skip": skip} if skip else {})), text()
        matched, staged = watch(network.matching if skip else ()), watch(network.trunk.stages)
        levels = watch(network.decoder if name == "mmi_unet" else network.decoder.ups)
        before = watch([level.attention for level in network.decoder] if name == "mmi_unet" else network.decoder.guides)
        with torch.no_grad():
            network(image(), features, mask)
        maps = [stage[0][1] for stage in staged]
        if skip:
            maps = [m[0][1][0] + (found if skip == "sum" else 0) for m, found in zip(matched, maps, strict=True)]
        for s in range(3):
            deeper, given = levels[s][0][0]
            below = maps[3] if s == 2 else levels[s + 1][0][1]
            assert torch.equal(given, maps[s])
            if name == "mmi_unet":
                assert torch.equal(deeper, below)
                assert torch.equal(before[s][0][0][0], maps[s])  # the channel attention stands on the skip
            else:
                assert torch.equal(before[s][0][0][0], below)
                assert torch.equal(before[s][0][0][1], features)  # T, not what the encoder made of it
                assert torch.equal(deeper, before[s][0][1])

    @MATCHED
    def test_the_no_report_token_stands_in_inside_the_encoder(self, name):
        network = small(name)
        (matched,) = watch(network.matching[:1])
        with torch.no_grad():
            before = network(image()).logits
            assert torch.equal(matched[0][0][1], network.no_report.expand(2, 1, WIDTH))
            network.no_report.add_(1)
            assert not torch.equal(network(image()).logits, before)

    def test_the_encoders_have_the_same_names_and_shapes(self):
        """What one has learned the other can start from."""
        parts = ("no_report", "trunk.", "matching.")
        ours, theirs = (
            {n: v.shape for n, v in small(name).state_dict().items() if n.startswith(parts)}
            for name in ("mmi_unet", "mmi_unet_gd")
        )
        assert ours == theirs
        assert len(ours) > 100


class TestGuidedDecoder:
    def test_padding_may_hold_anything(self):
        """Even what multiplication by zero would not get rid of."""
        features, mask = text()
        mask[:, 2:] = 0
        features[:, 2:] = float("nan")
        with torch.no_grad():
            assert torch.isfinite(small("guide_decoder")(image(), features, mask).logits).all()

    @pytest.mark.parametrize("change", [{"tokens": 0}, {"mixed_tokens": (4, 0, 2)}, {"mixed_tokens": (4, 2)}], ids=str)
    def test_impossible_numbers_are_refused(self, change):
        with pytest.raises(UsageError, match=r"cannot have these numbers of tokens.*1 or more"):
            small("guide_decoder", **change)


@pytest.mark.parametrize("name", KINDS)
def test_pretrained_tensors_are_read_when_asked_for_only(name, tmp_path):
    file = tmp_path / "trunk.safetensors"
    donor = small(name).trunk
    torch.manual_seed(5)
    save_file({donor.timm_names[n]: torch.randn_like(p) for n, p in donor.named_parameters()}, str(file))
    network = small(name, trunk_weights=str(file))
    before = {n: p.clone() for n, p in network.named_parameters()}
    assert all(torch.equal(p, before[f"trunk.{n}"]) for n, p in donor.named_parameters())  # building reads nothing
    network.load_pretrained()
    for n, p in network.named_parameters():
        assert torch.equal(p, before[n]) != n.startswith("trunk.")


def test_options_of_mmi_unet():
    network = small("mmi_unet", in_channels=1, dropout=0.5, decoder_channels=(8, 12, 20))
    assert [level.mix[0].out_channels for level in network.decoder] == [8, 12, 20]
    given = (image()[:, :1], *text())
    with torch.no_grad():
        first = network(*given).logits
        assert first.shape == (2, 1, 64, 96)
        assert torch.equal(network(*given).logits, first)
        network.train()  # dropout is random in training only
        assert not torch.equal(network(*given).logits, network(*given).logits)
