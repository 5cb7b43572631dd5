"""SGSeg: counts, published detector weights, numbers of queries, banks and thresholds, configurations, its graph."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from textray import registry
from textray.errors import BundleError, ShapeError, UsageError
from textray.models.build import build
from textray.models.guide_decoder import GuideDecoderConfig
from textray.models.mmi_unet import MMIUNetConfig
from textray.models.self_guided import LERG, PooledConfig, PooledLocator
from textray.models.sgseg import SGSeg, SGSegConfig, SGSegSimple, SGSegSimpleConfig
from textray.nn import detector as detectors
from textray.nn.detector import Detector, LERGConfig

TINY = {"trunk": "efficientnet_lite0", "width": 16, "queries": 30, "layers": 2, "heads": 2, "ffn": 16}
TEXT = 8
MATCHED = MMIUNetConfig(trunk="efficientnet_lite0", text_width=TEXT, decoder_channels=(8, 12, 16), ffn_width=16)


def count(module, *, trainable=True):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def tiny(**options):
    torch.manual_seed(0)
    config = SGSegConfig(locator=LERGConfig(**TINY), guide_decoder=None, mmi_unet=MATCHED, tokens=6, **options)
    return SGSeg(config).eval()


class TestSizes:
    def test_paper(self):
        with torch.device("meta"):
            network = SGSeg().eval()  # training asks for numbers, which this device has none of
            found = network.locator.detector(torch.zeros(1, 3, 224, 224))[0]
        assert found.shape == (1, 300, 256)
        # 41,931,558 is the count with frozen batch norms in the trunk and two classes.
        assert count(network.locator.detector, trainable=False) == 41_931_558 + 53_248 + 78 * 257 == 42_004_852
        assert count(network.locator) == 41_787_174
        assert count(network) == 83_963_719
        dead = [name for name, p in network.named_parameters() if not p.requires_grad]
        parts = {name.removeprefix("locator.detector.rt_detr.").partition(".")[0] for name in dead}
        assert parts == {"enc_output", "enc_score_head", "enc_bbox_head"}

    def test_light(self):
        light = LERGConfig(trunk="efficientnet_lite0", width=128, layers=3, ffn=512, expansion=0.5)
        matched = MMIUNetConfig(
            trunk="efficientnet_lite0", text_width=384, most_heads=4, decoder_channels=(32, 64, 96), skip="sum"
        )
        with torch.device("meta"):
            network = SGSeg(SGSegConfig(locator=light, guide_decoder=None, mmi_unet=matched, zone_tokens=True))
        assert count(network.locator, trainable=False) == 5_159_226
        assert count(network, trainable=False) == 11_420_124

    @pytest.mark.parametrize("size", [(32, 32), (64, 32), (64, 64)], ids=str)
    def test_never_more_queries_than_places(self, size):
        locator = LERG(LERGConfig(**{**TINY, "queries": 25})).eval()
        places = sum((size[0] // s) * (size[1] // s) for s in (8, 16, 32))
        with torch.no_grad():
            objects = locator.detector(torch.zeros(1, 3, *size))[0]
            logits, attention, _ = locator(torch.zeros(1, 3, *size))
        assert objects.shape[1] == min(25, places)
        assert logits.shape == (1, 6)
        assert attention.shape == (1, 1, size[0] // 8, size[1] // 8)

    def test_a_detector_can_see_less_than_the_segmenter(self):
        torch.manual_seed(0)
        plain, small = LERG(LERGConfig(**TINY)).eval(), LERG(LERGConfig(**TINY, size=(32, 64))).eval()
        small.load_state_dict(plain.state_dict())
        film = torch.rand(2, 3, 96, 128)
        seen = F.interpolate(film, (32, 64), mode="bilinear", align_corners=False)
        with torch.no_grad():
            logits, attention, _ = small(film)
            expected, *_ = plain(seen)
        assert torch.equal(logits, expected)
        assert attention.shape == (2, 1, 12, 16), "drawn on the film's own grid"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"width": 18}, "multiple of 4"),
            ({"heads": 3}, "multiple of 4 and of heads"),
            ({"queries": 0}, "each 1 or more"),
            ({"size": (48, 64)}, "multiple of 32"),
            ({"size": (0, 64)}, "multiple of 32"),
            ({"detector_weights": "file"}, "hold their own trunk"),
            ({"trunk": "resnet50_vd", "trunk_weights": "hub"}, "as detector_weights"),
            ({"trunk": "vit_tiny_patch16_224"}, "cannot be run stage by stage"),
        ],
        ids=str,
    )
    def test_impossible_detectors_are_refused(self, changes, message):
        with pytest.raises(UsageError, match=message):
            Detector(LERGConfig(**{**TINY, **changes}), in_channels=3)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (SGSegConfig(guide_decoder=None), "has one segmenter"),
            (SGSegConfig(mmi_unet=MATCHED), "guide_decoder and mmi_unet"),
            (SGSegConfig(guide_decoder=None, mmi_unet=MMIUNetConfig(zone_head=True)), "zone head would have no loss"),
            (SGSegConfig(zone_tokens=True), "24 tokens and 6 of the zones.*1 to 24"),
        ],
        ids=["none", "two", "zone head", "room"],
    )
    def test_impossible_networks_are_refused(self, config, message):
        with torch.device("meta"), pytest.raises(UsageError, match=message):
            SGSeg(config)


class TestDetectorWeights:
    """A small detector in the place of the published one, its file with the published names."""

    @pytest.fixture
    def config(self, monkeypatch):
        small = {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 16, 24, 32), "layer_type": "bottleneck"}
        monkeypatch.setitem(detectors.PUBLISHED, "resnet50_vd", small)
        return {**TINY, "trunk": "resnet50_vd"}

    @pytest.fixture
    def published(self, config, tmp_path):
        """A folder with a detector as hubs have it, heads and all: ``(folder, tensors)``."""
        torch.manual_seed(3)
        own = Detector(LERGConfig(**config), in_channels=3).rt_detr.state_dict()
        tensors = {"model.decoder.class_embed.0.weight": torch.zeros(80, 16)}
        for name, value in own.items():
            old = name.replace("encoder.aifi.", "encoder.encoder.").replace("self_attn.o_proj", "self_attn.out_proj")
            old = old.replace(".mlp.fc1.", ".fc1.").replace(".mlp.fc2.", ".fc2.")
            tensors[f"model.{old}"] = torch.randn(value.shape) if value.is_floating_point() else value
        assert "model.encoder.encoder.0.layers.0.fc1.weight" in tensors
        assert "model.decoder.layers.1.self_attn.out_proj.bias" in tensors
        assert "model.backbone.model.embedder.embedder.0.convolution.weight" in tensors
        save_file(tensors, str(tmp_path / "model.safetensors"))
        return tmp_path, tensors

    def test_tensors_change_to_those_of_the_file(self, config, published):
        folder, tensors = published
        torch.manual_seed(0)
        locator = LERG(LERGConfig(**config, detector_weights=str(folder)))
        before = {name: value.clone() for name, value in locator.detector.rt_detr.state_dict().items()}
        locator.load_pretrained()
        after = locator.detector.rt_detr.state_dict()
        changed = [name for name in after if not torch.equal(after[name], before[name])]
        assert len(changed) > 0.9 * len([name for name in after if not name.endswith("num_batches_tracked")])
        given = sorted(float(value.double().sum()) for name, value in tensors.items() if "embed.0.w" not in name)
        assert sorted(float(value.double().sum()) for value in after.values()) == pytest.approx(given)
        wanted = tensors["model.decoder.layers.1.fc2.weight"]
        assert torch.equal(locator.detector.rt_detr.decoder.layers[1].mlp.fc2.weight, wanted)
        locator.eval()(torch.zeros(1, 3, 64, 64))
        with pytest.raises(BundleError, match=r"changes too little.*Got 0 of"):
            locator.load_pretrained()

    def test_other_files_are_refused(self, config, published, tmp_path):
        tensors = dict(published[1])
        del tensors["model.enc_output.0.weight"]
        save_file(tensors, str(tmp_path / "cut.safetensors"))
        for file, changes, message in (
            ("cut.safetensors", {}, r"missing in .*enc_output"),
            ("model.safetensors", {"ffn": 8}, "does not fit the detector"),
            ("none", {}, "no detector weights to read"),
        ):
            locator = LERG(LERGConfig(**{**config, **changes}, detector_weights=str(tmp_path / file)))
            with pytest.raises(BundleError, match=message):
                locator.load_pretrained()


def test_both_trunks_are_read_and_learn_at_the_trunks_rate(tmp_path):
    file = tmp_path / "trunk.safetensors"
    source = PooledLocator(PooledConfig(trunk="efficientnet_lite0")).trunk
    state = source.state_dict()
    save_file({source.timm_names[name]: torch.randn(v.shape).to(v.dtype) for name, v in state.items()}, str(file))
    matched = MMIUNetConfig(trunk="efficientnet_lite0", trunk_weights=str(file), text_width=TEXT)
    pooled = PooledConfig(trunk="efficientnet_lite0", trunk_weights=str(file))
    lerg = LERGConfig(**TINY, trunk_weights=str(file))
    for network in (
        SGSegSimple(SGSegSimpleConfig(locator=pooled, guide_decoder=None, mmi_unet=matched)),
        SGSeg(SGSegConfig(locator=lerg, guide_decoder=None, mmi_unet=matched)),
    ):
        network.load_pretrained()
        trunks = [network.locator.trunk, network.segmenter.trunk]
        for trunk in trunks:
            assert not torch.equal(trunk.stages[0][0].weight, source.stages[0][0].weight)
        assert torch.equal(trunks[0].stages[0][0].weight, trunks[1].stages[0][0].weight)
        wanted = {id(p) for trunk in trunks for p in trunk.parameters()}
        assert {id(p) for p in network.trunk.parameters()} == wanted
        assert not [name for name in network.state_dict() if name.startswith("trunk.")]


class TestBank:
    def test_a_shorter_bank_is_filled_up(self):
        network = tiny()
        features, mask = torch.randn(64, 4, TEXT), torch.ones(64, 4)
        network.set_bank(features, mask)
        assert torch.equal(network.bank_features[:, :4], features)
        assert not network.bank_features[:, 4:].any()
        assert network.bank_mask.sum(1).tolist() == [4] * 64
        assert {"bank_features", "bank_mask", "thresholds"} <= network.state_dict().keys()

    def test_another_bank_and_thresholds_that_are_none_are_refused(self):
        network = tiny()
        for features, mask in (
            ((64, 7, TEXT), (64, 7)), ((63, 4, TEXT), (63, 4)), ((64, 4, 9), (64, 4)), ((64, 4, TEXT), (64, 5)),
        ):  # fmt: skip
            with pytest.raises(ShapeError, match="bank of sentences does not fit"):
                network.set_bank(torch.zeros(features), torch.ones(mask))
        with pytest.raises(ShapeError, match="zone thresholds"):
            network.set_thresholds(torch.ones(5))
        with pytest.raises(UsageError, match="probabilities"):
            network.set_thresholds(torch.full((6,), 1.5))

    def test_an_empty_bank_writes_nothing(self):
        network = tiny(zone_tokens=True)
        network.set_thresholds(torch.zeros(6))
        image, withheld = torch.randn(1, 3, 32, 32), -torch.ones(1, 2)
        with torch.no_grad():
            own, none = network(image), network(image, torch.zeros(1, 2, TEXT), withheld)
        assert torch.equal(own.logits, none.logits)


class TestDenial:
    def test_without_denials_the_masks_are_those_of_a_network_that_reads_none(self):
        """Its further tokens are masked, so nothing but the order of additions can differ."""
        plain, denying = tiny(zone_tokens=True), tiny(zone_tokens=True, denial=True)
        missing, unexpected = denying.load_state_dict(plain.state_dict(), strict=False)
        assert (missing, unexpected) == (["zone_denied"], [])
        for network in (plain, denying):
            network.set_bank(torch.randn(64, 6, TEXT, generator=torch.Generator().manual_seed(1)), torch.ones(64, 6))
        image, text = torch.randn(3, 3, 32, 64), torch.randn(3, 4, TEXT)
        mask = torch.tensor([[1.0] * 4, [0] * 4, [-1] * 4])
        with torch.no_grad():
            wanted, found = plain(image, text, mask), denying(image, text, mask)
            zeros = denying(image, text, mask, torch.zeros(3, 6))
            said = denying(image, text, mask, torch.tensor([[1.0] + [0] * 5] * 3))
        torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(zeros.logits, found.logits)
        assert ((said.logits - found.logits).abs().amax((1, 2, 3)) > 1e-4).all()
        assert torch.equal(said.zone_logits, found.zone_logits), "the locator reads no words"

    def test_there_must_be_room_for_its_tokens(self):
        with torch.device("meta"), pytest.raises(UsageError, match=r"12 tokens and 12 of the zones.*1 to 20"):
            SGSeg(SGSegConfig(guide_decoder=GuideDecoderConfig(tokens=20), tokens=12, zone_tokens=True, denial=True))


class TestBuilding:
    def test_a_configuration_comes_back_from_json_and_parts_left_out_are_the_defaults(self):
        network = tiny(zone_tokens=True)
        given = json.loads(json.dumps(asdict(network.config)))
        assert given["guide_decoder"] is None
        assert build(registry.model("sgseg").form("paper"), given).config == network.config
        simple = registry.model("sgseg_simple").form("paper")
        given = {"locator": {"trunk": "efficientnet_lite0"}, "guide_decoder": {"trunk": "resnet18", "tokens": 30}}
        config = build(simple, given).config
        assert config.guide_decoder == GuideDecoderConfig(trunk="resnet18", tokens=30)
        assert config.locator == PooledConfig(trunk="efficientnet_lite0")

    def test_an_unknown_field_is_named_with_its_place(self):
        row = registry.model("sgseg").form("paper")
        with pytest.raises(UsageError, match=r"unknown fields.*locator\.trnk.*tokns.*locator\.trunk") as refused:
            build(row, {"locator": {"trnk": "x"}, "tokns": 3})
        assert "zone_tokens" in str(refused.value)
        with pytest.raises(UsageError, match=r"the field locator has fields of its own"):
            build(row, {"locator": "resnet50_vd"})
