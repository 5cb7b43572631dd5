"""GuideDecoder and MMI-UNet with GuideDecoder: counts, the way of the text, being off without it, sizes."""

import pytest
import torch
from safetensors.torch import save_file

from textray.errors import UsageError
from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
from textray.models.mmi_unet_gd import MMIUNetGD, MMIUNetGDConfig

WIDTH = 8
KINDS = {"guide_decoder": (GuideDecoder, GuideDecoderConfig), "mmi_unet_gd": (MMIUNetGD, MMIUNetGDConfig)}


def small(name, **changes):
    torch.manual_seed(0)
    network, config = (KINDS | {"mmi_unet": (MMIUNet, MMIUNetConfig)})[name]
    settings = {"trunk": "convnext_atto", "text_width": WIDTH, "decoder_channels": (8, 12, 16), **changes}
    if name != "guide_decoder":
        settings.setdefault("dropout", 0.0)
    return network(config(**settings)).eval()


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def text(rows=2, tokens=4):
    return torch.randn(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(1)), torch.ones(rows, tokens)


def image(*size, rows=2):
    return torch.randn(rows, 3, *(size or (64, 96)), generator=torch.Generator().manual_seed(2))


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def watch(module):
    """Record what goes into a module and what comes out, in order of the calls."""
    seen = []
    module.register_forward_hook(lambda _, given, found: seen.append((given, found)))
    return seen


def paper(name):
    with torch.device("meta"):  # sizes without memory
        return KINDS[name][0]()


class TestPaperConfiguration:
    def test_parameters_of_guide_decoder(self):
        network = paper("guide_decoder")
        assert count(network) == 42_176_545
        assert list(network.named_parameters(recurse=False)) == []  # no token besides

    def test_parameters_of_mmi_unet_gd(self):
        network = paper("mmi_unet_gd")
        assert count(network) - network.no_report.numel() == 60_827_265
        assert [n for n, _ in network.named_parameters(recurse=False)] == ["no_report"]

    def test_parts(self, name):
        network = paper(name)
        assert count(network.trunk) == 27_818_592
        assert count(network.head) == 332_185
        assert [count(guide) for guide in network.decoder.guides] == [445_858, 1_481_389, 5_322_073]
        assert [count(up) for up in network.decoder.ups] == [322_944, 1_291_008, 5_162_496]

    def test_heads_and_tokens(self, name):
        guides = paper(name).decoder.guides
        assert [(g.self_attention.heads, g.cross_attention.heads) for g in guides] == [(1, 4)] * 3
        assert [(g.text.mix.in_features, g.text.mix.out_features) for g in guides] == [(24, 9), (24, 12), (24, 24)]

    def test_sines_are_no_parameters(self, name):
        """Nothing of a network has the length of a map, so that any size will do."""
        network = small(name)
        assert not [n for n, _ in network.decoder.named_buffers() if "norm" not in n and ".mix." not in n]
        before = {n: p.shape for n, p in network.state_dict().items()}
        with torch.no_grad():
            network(image(96, 128), *text())
        assert {n: p.shape for n, p in network.state_dict().items()} == before

    @pytest.mark.parametrize(("given", "scale"), [("guide_decoder", 1.421), ("mmi_unet_gd", 0.01)])
    def test_initial_scale(self, given, scale):
        for settings, wanted in (({}, scale), ({"scale": 0.25}, 0.25), ({"scale": 1}, 1.0)):
            guides = small(given, **settings).decoder.guides
            assert [g.scale.item() for g in guides] == pytest.approx([wanted] * 3)
            assert all(g.scale.requires_grad for g in guides)

    def test_the_trunks_of_all_three_are_the_same(self):
        assert GuideDecoderConfig().trunk == MMIUNetGDConfig().trunk == MMIUNetConfig().trunk


class TestWayOfTheText:
    def test_guide_decoder_reads_trunk_and_text(self):
        network, (features, mask) = small("guide_decoder"), text()
        guides = [watch(g) for g in network.decoder.guides]
        ups = [watch(u) for u in network.decoder.ups]
        with torch.no_grad():
            network(image(), features, mask)
            maps = network.trunk(image())
        for s in range(3):
            given, guided = guides[s][0]
            assert torch.equal(given[0], maps[3] if s == 2 else ups[s + 1][0][1])
            assert torch.equal(given[1], features)
            assert torch.equal(ups[s][0][0][0], guided)
            assert torch.equal(ups[s][0][0][1], maps[s])

    @pytest.mark.parametrize("skip", ["itm", "sum"])
    def test_mmi_unet_gd_reads_matched_maps_and_the_original_text(self, skip):
        network, (features, mask) = small("mmi_unet_gd", skip=skip), text()
        guides = [watch(g) for g in network.decoder.guides]
        ups = [watch(u) for u in network.decoder.ups]
        matched, staged = [watch(m) for m in network.matching], [watch(s) for s in network.trunk.stages]
        with torch.no_grad():
            network(image(), features, mask)
        maps = [m[0][1][0] + (s[0][1] if skip == "sum" else 0) for m, s in zip(matched, staged, strict=True)]
        for s in range(3):
            given = guides[s][0][0]
            assert torch.equal(given[0], maps[3] if s == 2 else ups[s + 1][0][1])
            assert torch.equal(given[1], features)  # T, not what the encoder made of it
            assert torch.equal(ups[s][0][0][1], maps[s])
        for s in range(1, 4):  # feedback and recursion, as in MMI-UNet
            image_delta, text_delta = matched[s - 1][0][1]
            assert torch.equal(staged[s][0][0][0], staged[s - 1][0][1] + image_delta)
            assert torch.equal(matched[s][0][0][1], features + text_delta)
        assert matched[3][0][1][1] is None  # no text tail that nothing reads

    def test_the_encoder_is_that_of_mmi_unet(self):
        """Same names, same shapes: what one has learnt the other can start from."""
        shared = {"trunk": "convnext_atto", "text_width": WIDTH}
        plain, guided = MMIUNet(MMIUNetConfig(**shared)), MMIUNetGD(MMIUNetGDConfig(**shared))
        parts = ("no_report", "trunk.", "matching.")
        ours, theirs = ({n: v.shape for n, v in m.state_dict().items() if n.startswith(parts)} for m in (guided, plain))
        assert ours == theirs
        assert len(ours) > 100

    @pytest.mark.parametrize("given", [None, "zero mask"], ids=str)
    def test_without_text_the_guide_layers_are_off(self, name, given):
        network = small(name)
        guides = [watch(g) for g in network.decoder.guides]
        features, mask = text()
        words = (None, None) if given is None else (features, torch.zeros_like(mask))
        with torch.no_grad():
            found = network(image(), *words).logits
            free = network(image()).logits
        for seen in guides:
            assert all(torch.equal(out, given[0]) for given, out in seen)
        torch.testing.assert_close(found, free, rtol=1e-4, atol=1e-6)

    def test_the_no_report_token_stands_in_inside_the_encoder_only(self):
        network = small("mmi_unet_gd")
        matched = watch(network.matching[0])
        with torch.no_grad():
            before = network(image()).logits
            assert torch.equal(matched[0][0][1], network.no_report.expand(2, 1, WIDTH))
            network.no_report.add_(1)
            assert not torch.equal(network(image()).logits, before)

    def test_every_level_reads_the_text(self, name):
        network, (features, mask) = small(name), text()
        features.requires_grad_(True)
        for level in range(3):
            seen = []
            hook = network.decoder.guides[level].register_forward_hook(
                lambda _, given, out, seen=seen: seen.append(out)
            )
            network(image(), features, mask)
            hook.remove()
            (seen[0].square().sum()).backward()
            assert features.grad is not None
            assert features.grad.any()
            features.grad = None


class TestTextLength:
    def test_another_number_can_be_configured(self, name):
        network = small(name, tokens=40, mixed_tokens=(10, 6, 1))
        assert network.most_tokens == 40
        with torch.no_grad():
            assert network(image(), *text(tokens=40)).logits.shape == (2, 1, 64, 96)

    def test_padding_may_hold_anything(self):
        """Even what multiplication by zero would not get rid of."""
        features, mask = text()
        mask[:, 2:] = 0
        features[:, 2:] = float("nan")
        with torch.no_grad():
            assert torch.isfinite(small("guide_decoder")(image(), features, mask).logits).all()

    @pytest.mark.parametrize("change", [{"tokens": 0}, {"mixed_tokens": (4, 0, 2)}, {"mixed_tokens": (4, 2)}], ids=str)
    def test_impossible_numbers_are_refused(self, name, change):
        with pytest.raises(UsageError, match=r"cannot have these numbers of tokens.*1 or more"):
            small(name, **change)


@pytest.mark.parametrize("kind", [*KINDS, "mmi_unet"])
def test_head_needs_a_multiple_of_four(kind):
    with pytest.raises(UsageError, match=r"multiple of 4 channels.*Got 6.*decoder_channels"):
        small(kind, decoder_channels=(6, 8, 8))


@pytest.mark.parametrize("kind", [*KINDS, "mmi_unet"])
def test_pretrained_tensors_are_read_when_asked_for_only(kind, tmp_path):
    file = tmp_path / "trunk.safetensors"
    donor = small(kind).trunk
    torch.manual_seed(5)
    save_file({donor.timm_names[n]: torch.randn_like(p) for n, p in donor.named_parameters()}, str(file))
    network = small(kind, trunk_weights=str(file))
    before = {n: p.clone() for n, p in network.named_parameters()}
    assert all(torch.equal(p, before[f"trunk.{n}"]) for n, p in donor.named_parameters())  # building reads nothing
    network.load_pretrained()
    for n, p in network.named_parameters():
        assert torch.equal(p, before[n]) != n.startswith("trunk.")
