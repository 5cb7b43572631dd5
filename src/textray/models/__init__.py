"""The networks, one paper a file.

    from textray.models import MMIUNet, MMIUNetConfig

    network = MMIUNet(MMIUNetConfig(trunk="efficientnet_lite0", text_width=384))

Importing this module does not load torch; a network is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textray import registry

if TYPE_CHECKING:
    from textray.models.base import Network, Output
    from textray.models.baselines.attention_unet import AttentionUNet, AttentionUNetConfig
    from textray.models.baselines.clip import CLIP, CLIPConfig, CLIPText, CLIPTextConfig
    from textray.models.baselines.convirt import ConVIRT, ConVIRTConfig
    from textray.models.baselines.gloria import GLoRIA, GLoRIAConfig
    from textray.models.baselines.lavt import LAVT, LAVTConfig
    from textray.models.baselines.nnunet import NNUNet, NNUNetConfig
    from textray.models.baselines.swin_unet import SwinUNet, SwinUNetConfig
    from textray.models.baselines.tganet import TGANet, TGANetConfig
    from textray.models.baselines.transunet import TransUNet, TransUNetConfig
    from textray.models.baselines.uctransnet import UCTransNet, UCTransNetConfig
    from textray.models.baselines.unet import UNet, UNetConfig
    from textray.models.baselines.unet_plus_plus import UNetPlusPlus, UNetPlusPlusConfig
    from textray.models.baselines.vilt import ViLT, ViLTConfig
    from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
    from textray.models.lvit import LViT, LViTConfig
    from textray.models.mmi_unet import MMIUNet, MMIUNetConfig
    from textray.models.mmi_unet_gd import MMIUNetGD, MMIUNetGDConfig
    from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig
    from textray.models.sgseg import SGSeg, SGSegConfig, SGSegSimple, SGSegSimpleConfig

__all__ = [
    "CLIP",
    "LAVT",
    "AttentionUNet",
    "AttentionUNetConfig",
    "CLIPConfig",
    "CLIPText",
    "CLIPTextConfig",
    "ConVIRT",
    "ConVIRTConfig",
    "GLoRIA",
    "GLoRIAConfig",
    "GuideDecoder",
    "GuideDecoderConfig",
    "LAVTConfig",
    "LViT",
    "LViTConfig",
    "MMIUNet",
    "MMIUNetConfig",
    "MMIUNetGD",
    "MMIUNetGDConfig",
    "NNUNet",
    "NNUNetConfig",
    "Network",
    "Output",
    "SGSeg",
    "SGSegConfig",
    "SGSegSimple",
    "SGSegSimpleConfig",
    "SentenceGrounding",
    "SentenceGroundingConfig",
    "SwinUNet",
    "SwinUNetConfig",
    "TGANet",
    "TGANetConfig",
    "TransUNet",
    "TransUNetConfig",
    "UCTransNet",
    "UCTransNetConfig",
    "UNet",
    "UNetConfig",
    "UNetPlusPlus",
    "UNetPlusPlusConfig",
    "ViLT",
    "ViLTConfig",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    rows = [path for row in registry.MODELS.values() for form in row.forms for path in (form.path, form.config)]
    return registry.load(next((path for path in rows if path.endswith(f":{name}")), f"{__name__}.base:{name}"))


def __dir__() -> list[str]:
    return sorted(__all__)
