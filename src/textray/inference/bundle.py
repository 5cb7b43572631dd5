"""Bundles: folders that carry a trained network and everything needed to use it.

A segmenter (`Bundle`):

    config.json               network, sizes, zones, threshold, provenance, SHA-256 of each other file
    model.onnx                the graph that `textray.inference.runtime` runs, without its weights
    model.safetensors         the weights in half precision, for the graphs and for torch
    text_bank.safetensors     token features of the 64 zone sentences or of known captions; only if it reads text
    preprocess.json           from a picture to the network's input
    README.md, LICENSE        model card and the terms of the weights

A grounding network (`GroundingBundle`) has two graphs and, since phrases are free, its text encoder:

    image.onnx                image -> local (B, D, h, w), pooled (B, D)
    text.onnx                 ids, attention, weights (K, L) -> phrases (K, D), of length one
    vocab.txt                 word pieces, one a line

Loading is strict: another format, key, size or hash than the config states is refused. Nothing in a bundle is executed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, Unpack

from textray import registry
from textray.errors import BundleError, OutputError, unknown_name
from textray.inference import bundle_files, own_report
from textray.inference.bank import BANK, BANK_ROWS, MOST_TOKENS, MOST_WIDTH, TextBank, parse_bank, read_captions
from textray.inference.bundle_files import CONFIG, FORMAT, GROUNDING_FILES, Task, read_file, segmenter_files
from textray.inference.film import Bounds, read_bounds
from textray.inference.own_report import TextFree
from textray.preprocess import Preprocess
from textray.records import ZONE_ROWS, Laterality, ZoneSplit
from textray.text.sentences import CUTS, Cut
from textray.text.tokens import Aggregation, WordPiece, read_pieces

log = logging.getLogger(__name__)

# Used where none are named.
DEFAULT_WEIGHTS, DEFAULT_GROUNDING_WEIGHTS = "sgseg_lite", "sentence_grounding_small"
WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
ZONE_COLUMNS = (0.5,)

_KEYS = {"format", "name", "version", "model", "input", "text", "provenance", "files"}
_MOST_CELLS = 1024


class About(TypedDict):
    """Statements of a bundle about its weights, as attributes of `BaseBundle`; JSON values."""

    name: str
    version: str
    model: str
    form: str
    model_config: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BaseBundle(ABC):
    """Base class of all bundles: a folder whose files match the hashes in its ``config.json``.

    ``sha256`` is a hash of what decides a result. Card and licence are not in it, so that scores can be added to the
    card.
    """

    TASK: ClassVar[Task]
    KEYS: ClassVar[frozenset[str]]
    """Keys of the config that decide a result, beside the files."""

    folder: Path
    name: str
    version: str
    model: str  # registry name of the network
    form: str  # such as "paper"
    model_config: dict[str, Any]  # fields of the network's config dataclass
    preprocess: Preprocess
    provenance: dict[str, Any]  # data, epoch, terms and whatever else the exporter noted
    files: dict[str, dict[str, Any]]  # size and SHA-256 of each file except the config
    sha256: str

    @classmethod
    def load(cls, name_or_folder: str | Path | None = None) -> Self:
        """Find a bundle, by default that of the task, and verify each of its files.

        Raises:
            BundleError: If a file is missing, cut off or altered, the format or a key is not the expected one, or the
                weights are for another task.
            UsageError: If there is no bundle of that name.
        """
        folder = find(name_or_folder, DEFAULT_GROUNDING_WEIGHTS if cls.TASK == "grounding" else DEFAULT_WEIGHTS)
        config = bundle_files.read_config(folder, cls.TASK)
        try:
            bundle = cls._read(folder, config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"{CONFIG} of bundle {folder.name} is not laid out as expected",
                came=f"{type(error).__name__}: {error}",
                do="Export the checkpoint again with: textray export",
            ) from error
        log.debug("bundle %s %s verified", bundle.name, bundle.sha256[:12])
        return bundle

    @property
    def size_bytes(self) -> int:
        """Size of all files except the config."""
        return sum(int(listed["bytes"]) for listed in self.files.values())

    def read(self, name: str) -> bytes:
        """Bytes of one of the files, verified again."""
        data = read_file(self.folder, name)
        bundle_files.compare(self.folder, name, self.files[name], len(data), hashlib.sha256(data).hexdigest())
        return data

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The bundle as `textray info` and the records of runs show it."""

    @classmethod
    @abstractmethod
    def _read(cls, folder: Path, config: dict[str, Any]) -> Self:
        """Verify the folder and read the config."""

    @classmethod
    def _verify(cls, folder: Path, config: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
        """Verify what every bundle has; gives the fields of this class."""
        keys = _KEYS | cls.KEYS | ({"task"} if cls.TASK == "grounding" else set())
        if set(config) != keys:
            missing, more = sorted(keys - set(config)), sorted(set(config) - keys)
            what = f"{CONFIG} of bundle {folder.name} has other keys"
            raise BundleError(what, came=f"missing {missing}, unknown {more}")
        bundle_files.check_files(folder, config["files"], files)
        preprocess = bundle_files.read_preprocess(folder)
        stated = tuple(config["input"][key] for key in ("height", "width", "channels"))
        if stated != (shape := (*preprocess.size, preprocess.channels)):
            what = f"bundle {folder.name} contradicts itself"
            raise BundleError(what, came=f"input {stated} in {CONFIG}", expected=f"{shape} as in preprocess.json")
        return {
            "folder": folder,
            "name": str(config["name"]),
            "version": str(config["version"]),
            "model": str(config["model"]["name"]),
            "form": str(config["model"]["form"]),
            "model_config": dict(config["model"]["config"]),
            "preprocess": preprocess,
            "provenance": dict(config["provenance"]),
            "files": {name: dict(listed) for name, listed in config["files"].items()},
            "sha256": bundle_files.identity(config, cls.KEYS),
        }

    @classmethod
    def _seal(cls, folder: Path, files: Sequence[str], decides: Mapping[str, Any], about: About) -> Self:
        """Write the config of a folder whose other files are in place, and load it as a user would."""
        preprocess = bundle_files.read_preprocess(folder)
        config = {
            "format": FORMAT,
            "name": about["name"],
            "version": about["version"],
            "model": {"name": about["model"], "form": about["form"], "config": dict(about["model_config"])},
            "input": {"height": preprocess.size[0], "width": preprocess.size[1], "channels": preprocess.channels},
            "provenance": dict(about["provenance"]),
            "files": bundle_files.list_files(folder, files),
            **({"task": cls.TASK} if cls.TASK == "grounding" else {}),
            **decides,
        }
        try:
            (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder / CONFIG} cannot be written", came=error.strerror) from error
        return cls.load(folder)


@dataclass(frozen=True, kw_only=True)
class Bundle(BaseBundle):
    """A verified bundle of a segmenter."""

    TASK: ClassVar[Task] = "segmentation"
    KEYS: ClassVar[frozenset[str]] = frozenset({"input", "text", "threshold", "zones"})

    threshold: float  # probability from which a pixel is lesion
    text_encoder: str | None  # registry name of the encoder of the bank, none if the network reads no text
    tokens: int  # L of a row of the bank, 0 without one
    width: int  # D of a token feature, 0 without a bank
    captions: tuple[str, ...]  # texts of the bank's rows, none if they are zone sentences
    zone_rows: tuple[float, float]  # heights, as shares of the image, that split upper, middle and lower zones
    zone_thresholds: tuple[float, ...] | None  # probabilities from which the network writes each of `ZONE_NAMES`
    text_free: TextFree  # what a run without a text does; always "none" if the network writes no report
    bounds: Bounds | None = None  # at which a film is judged as a whole, none if the network tells no presence

    @property
    def zone_split(self) -> ZoneSplit:
        """Zones of pixels where no lungs are found: halves of the picture, split at ``zone_rows``."""
        return ZoneSplit(column=ZONE_COLUMNS[0], rows=(self.zone_rows, self.zone_rows))

    @property
    def needs_text(self) -> bool:
        """True if the network cannot work without a text, as the registry states of its form."""
        row = registry.MODELS.get(self.model)
        return row is not None and any(form.needs_text for form in row.forms if form.name == self.form)

    @property
    def writes_report(self) -> bool:
        """True if the network can write a report of its own."""
        return self.zone_thresholds is not None

    def text_bank(self) -> TextBank | None:
        """The text bank, ``None`` if the network reads no text; refused if the config states other tensors."""
        if self.text_encoder is None:
            return None
        shape = (len(self.captions) or BANK_ROWS, self.tokens, self.width)
        return parse_bank(self.read(BANK), shape, captions=self.captions)

    def describe(self) -> dict[str, Any]:
        """The bundle as `textray info` and the records of runs show it."""
        return {
            "name": self.name,
            "version": self.version,
            "model": self.model,
            "form": self.form,
            "needs_text": self.needs_text,
            "sha256": self.sha256,
            "bytes": self.size_bytes,
            "size": list(self.preprocess.size),
            "text_encoder": self.text_encoder,
            "threshold": self.threshold,
            "writes_report": self.writes_report,
            "text_free": self.text_free,
            **({} if self.bounds is None else {"presence": asdict(self.bounds)}),
            **self._beside(),
            **({"captions": list(self.captions)} if self.captions else {}),
        }

    def _beside(self) -> dict[str, bool]:
        """What the network does beside a mask, by its configuration."""
        segmenter = self.model_config.get("mmi_unet") or self.model_config
        beside = {"reads_denials": self.model_config.get("denial"), "finds_lungs": segmenter.get("lungs")}
        return {name: True for name, able in beside.items() if able}

    @classmethod
    def _read(cls, folder: Path, config: dict[str, Any]) -> Self:
        text = config.get("text")
        encoder = None if text is None else str(text["encoder"])
        fields = cls._verify(folder, config, segmenter_files(encoder))
        rows = tuple(float(row) for row in config["zones"]["rows"])
        if len(rows) != 2 or not 0 < rows[0] < rows[1] < 1 or tuple(config["zones"]["columns"]) != ZONE_COLUMNS:
            what = "zone split of the bundle is wrong"
            raise BundleError(what, came=config["zones"], expected="two rows rising in (0, 1)")
        threshold = float(config["threshold"])
        if not (math.isfinite(threshold) and 0 < threshold < 1):
            raise BundleError("threshold of the bundle is wrong", came=threshold, expected="a number in (0, 1)")
        tokens, width = (0, 0) if text is None else (int(text["tokens"]), int(text["width"]))
        if text is not None and not (0 < tokens <= MOST_TOKENS and 0 < width <= MOST_WIDTH):
            raise BundleError(
                "text bank of the bundle has an impossible size",
                came=f"{tokens} tokens, width {width}",
                expected=f"at most {MOST_TOKENS} and {MOST_WIDTH}",
            )
        zone_thresholds, text_free = own_report.read_thresholds(config["zones"], text)
        return cls(
            **fields,
            threshold=threshold,
            text_encoder=encoder,
            tokens=tokens,
            width=width,
            captions=read_captions(text, writes=zone_thresholds is not None),
            zone_rows=(rows[0], rows[1]),
            zone_thresholds=zone_thresholds,
            text_free=text_free,
            bounds=read_bounds(config["zones"]),
        )


def seal(
    folder: str | Path,
    *,
    threshold: float,
    text_encoder: str | None,
    zone_rows: tuple[float, float] = ZONE_ROWS,
    zone_thresholds: Sequence[float] | None = None,
    text_free: TextFree | None = None,
    captions: Sequence[str] = (),
    bounds: Bounds | None = None,
    **about: Unpack[About],
) -> Bundle:
    """Write the config of a segmenter whose other files are in place, and load it as a user would, with all refusals.

    The arguments are attributes of `Bundle`; without ``text_free`` a network that writes a report does.
    """
    folder = Path(folder)
    text: dict[str, Any] | None = None
    if text_encoder is not None:
        bank = parse_bank(read_file(folder, BANK), captions=captions)
        text = {"encoder": text_encoder, "tokens": bank.features.shape[1], "width": bank.features.shape[2]}
        if text_free is not None:
            text["free"] = text_free
        if captions:
            text["captions"] = list(captions)
    zones: dict[str, Any] = {"rows": list(zone_rows), "columns": list(ZONE_COLUMNS)}
    if zone_thresholds is not None:  # the key would change the hash of bundles that write no report
        zones["thresholds"] = list(zone_thresholds)
    if bounds is not None:
        zones["presence"] = asdict(bounds)
    decides = {"text": text, "zones": zones, "threshold": threshold}
    return Bundle._seal(folder, segmenter_files(text_encoder), decides, about)


@dataclass(frozen=True, kw_only=True)
class GroundingText:
    """How a phrase becomes what the text graph reads."""

    encoder: str  # registry name of the text encoder, or "own"
    laterality: Laterality  # whose left and right the training texts meant
    lower: bool  # words are lower-cased
    most_pieces: int  # longest text in pieces, the two marks included
    aggregation: Aggregation
    sentences: Cut

    def to_dict(self) -> dict[str, Any]:
        """The values in ``config.json``."""
        return {**asdict(self), "laterality": str(self.laterality)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GroundingText:
        """Build from the result of `to_dict`; what is missing or of another kind raises as it comes."""
        text = cls(
            encoder=str(values["encoder"]),
            laterality=Laterality(values["laterality"]),
            lower=values["lower"],
            most_pieces=int(values["most_pieces"]),
            aggregation=Aggregation(**values["aggregation"]),
            sentences=values["sentences"],
        )
        if not 3 <= text.most_pieces <= MOST_TOKENS or not isinstance(text.lower, bool):
            raise BundleError("text settings of the bundle are impossible", came=dict(values))
        if text.sentences not in CUTS:
            raise BundleError("the bundle cuts texts in an unknown way", came=text.sentences, expected=", ".join(CUTS))
        return text


@dataclass(frozen=True, kw_only=True)
class GroundingBundle(BaseBundle):
    """A verified bundle of a grounding network."""

    TASK: ClassVar[Task] = "grounding"
    KEYS: ClassVar[frozenset[str]] = frozenset({"input", "text", "map", "width"})

    text: GroundingText
    map_size: tuple[int, int]  # height and width of the map of one phrase, in cells
    width: int  # D, of the space that film and phrase share

    def vocabulary(self) -> WordPiece:
        """The word pieces; a file that is no vocabulary is refused."""
        return WordPiece(read_pieces(self.read("vocab.txt")), lower=self.text.lower)

    def describe(self) -> dict[str, Any]:
        """The bundle as `textray info` and the records of runs show it."""
        return {
            "name": self.name,
            "version": self.version,
            "task": "grounding",
            "model": self.model,
            "form": self.form,
            "sha256": self.sha256,
            "bytes": self.size_bytes,
            "size": list(self.preprocess.size),
            "map": list(self.map_size),
            "width": self.width,
            "text_encoder": self.text.encoder,
            "sides": str(self.text.laterality),
            "sentences": self.text.sentences,
        }

    @classmethod
    def _read(cls, folder: Path, config: dict[str, Any]) -> Self:
        fields = cls._verify(folder, config, GROUNDING_FILES)
        map_size, width = (int(config["map"]["height"]), int(config["map"]["width"])), int(config["width"])
        if not (min(map_size) > 0 and max(map_size) <= _MOST_CELLS and 0 < width <= MOST_WIDTH):
            raise BundleError(
                "the map of the bundle has an impossible size",
                came=f"{map_size} cells, width {width}",
                expected=f"1 to {_MOST_CELLS} cells and 1 to {MOST_WIDTH}",
            )
        return cls(**fields, text=GroundingText.from_dict(config["text"]), map_size=map_size, width=width)


def seal_grounding(
    folder: str | Path, *, text: GroundingText, map_size: tuple[int, int], width: int, **about: Unpack[About]
) -> GroundingBundle:
    """Write the config of a grounding network whose other files are in place, as `seal` does."""
    size = {"height": map_size[0], "width": map_size[1]}
    decides = {"text": text.to_dict(), "map": size, "width": width}
    return GroundingBundle._seal(Path(folder), GROUNDING_FILES, decides, about)


def inside() -> list[str]:
    """Names of the bundles inside the package."""
    return sorted(path.parent.name for path in WEIGHTS_FOLDER.glob(f"*/{CONFIG}"))


def find(name_or_folder: str | Path | None, default: str) -> Path:
    """Folder of a bundle: weights in the package by name (``default`` for ``None``), or any folder with a config."""
    names = inside()
    name = default if name_or_folder is None else str(name_or_folder)
    if name in names:
        return WEIGHTS_FOLDER / name
    if name_or_folder is None:
        raise BundleError(
            f"the default weights {default} are not inside this installation",
            do="Name a bundle folder with --model, or install a wheel of TextRay that holds them",
        )
    folder = Path(name_or_folder)
    if not folder.is_dir():
        error = unknown_name("bundle", str(name_or_folder), names or [default])
        raise type(error)(error.what, expected=f"{error.expected}, or a bundle folder", do=error.do)
    if not (folder / CONFIG).is_file():
        what, expected = f"{folder} holds no bundle", "a folder that textray export wrote"
        raise BundleError(what, came=f"no {CONFIG}", expected=expected)
    return folder


def load_any(name_or_folder: str | Path | None = None) -> Bundle | GroundingBundle:
    """A bundle of whichever task; raises as the two classes do."""
    folder = find(name_or_folder, DEFAULT_WEIGHTS)
    task = bundle_files.parse_json(read_file(folder, CONFIG), CONFIG).get("task")
    return GroundingBundle.load(folder) if task == "grounding" else Bundle.load(folder)
