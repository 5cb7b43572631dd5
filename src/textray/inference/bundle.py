"""Bundles: folders that carry a trained network and everything needed to use it.

    config.json               what the network is, sizes, zones, threshold, provenance, SHA-256 of each other file
    model.onnx                the graph that `textray.inference.runtime` runs, without its weights
    model.safetensors         the weights in half precision, for the graph and for torch
    text_bank.safetensors     token features of the 64 zone sentences or of known captions; where it reads text only
    preprocess.json           from a picture to the network's input
    README.md, LICENSE        model card and the weights' own terms

Loading is strict for both kinds: another format, another key, another hash or another size than stated is refused, and
nothing in a bundle is ever executed.

A grounding bundle: the folder that carries a network which tells where in a film a phrase is true.

    config.json          what the network is, sizes, how texts are cut and joined, provenance, hash of each other file
    image.onnx           image -> local (B, D, h, w), pooled (B, D)
    text.onnx            ids, attention, weights (K, L) -> phrases (K, D), of length one
    vocab.txt            word pieces, one a line: phrases are free, so the text encoder itself is inside
    model.safetensors    the weights in half precision, for both graphs and for torch
    preprocess.json      from a picture to the network's input
    README.md, LICENSE   model card and the weights' own terms

The graphs hold no weights: they get them widened, and compute in single precision.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from textray import registry
from textray.errors import BundleError, unknown_name
from textray.inference import bank as known_captions
from textray.inference import own_report
from textray.inference.bank import BANK, BANK_ROWS, MOST_TOKENS, MOST_WIDTH, TextBank, parse_bank
from textray.inference.bundle_files import (
    CONFIG,
    GROUNDING_FILES,
    Sealed,
    expected_files,
    open_sealed,
    parse_json,
    read_file,
    read_sealed,
    sealed_config,
    task_of,
    write_config,
)
from textray.inference.own_report import TextFree
from textray.records import ZONE_ROWS, Laterality
from textray.text.tokens import Aggregation, WordPiece, read_pieces

log = logging.getLogger(__name__)

DEFAULT_WEIGHTS = "sgseg_lite"
"""Name of the bundle that is used where none is asked for."""
WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Where the bundles inside the package lie."""
ZONE_COLUMNS = (0.5,)

_KEYS = {
    "format", "name", "version", "model", "input", "text", "zones", "threshold", "provenance", "files",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bundle(Sealed):
    """A verified bundle of a segmenter.

    Attributes:
        threshold: Probability from which a pixel is lesion.
        text_encoder: Registry name of the text encoder of the bank, ``None`` where the network reads no text.
        tokens: Tokens L of a row of the bank, 0 without one.
        width: Width D of a token feature, 0 without one.
        captions: What the rows of the bank say where its data have free captions; none where they are zone sentences.
        zone_rows: Heights, as shares of the image, that split upper, middle and lower zones of pixels.
        zone_thresholds: Probability from which the network writes a zone into its own report, six of them in the order
            of `textray.records.ZONE_NAMES`; ``None`` where it writes none.
        text_free: What a run without a text does; always ``none`` where the network writes no report.
    """

    threshold: float
    text_encoder: str | None
    tokens: int
    width: int
    captions: tuple[str, ...]
    zone_rows: tuple[float, float]
    zone_thresholds: tuple[float, ...] | None
    text_free: TextFree

    @classmethod
    def load(cls, name_or_folder: str | Path | None = None) -> Bundle:
        """Find a bundle and verify each of its files.

        Args:
            name_or_folder: Name of weights inside the package, or a folder; ``None`` is `DEFAULT_WEIGHTS`.

        Raises:
            BundleError: If a file is missing, cut off or altered, or the format or a key is not the expected one.
            UsageError: If there is no bundle of that name.
        """
        bundle = open_sealed(find(name_or_folder), "segmentation", _from_config)
        log.debug("bundle %s %s verified", bundle.name, bundle.sha256[:12])
        return bundle

    @property
    def needs_text(self) -> bool:
        """True where the network cannot work without a text, as the registry says of its form."""
        row = registry.MODELS.get(self.model)
        return row is not None and any(form.needs_text for form in row.forms if form.name == self.form)

    @property
    def writes_report(self) -> bool:
        """True where the network can write a report of its own."""
        return self.zone_thresholds is not None

    def text_bank(self) -> TextBank | None:
        """The text bank, ``None`` where the network reads no text.

        Raises:
            BundleError: If its tensors are not those that the config announces.
        """
        if self.text_encoder is None:
            return None
        rows = len(self.captions) or BANK_ROWS
        return parse_bank(self.read(BANK), (rows, self.tokens, self.width), rows=rows)

    def describe(self) -> dict[str, Any]:
        """What `textray info` and the records of runs say of the bundle."""
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
            **({"captions": list(self.captions)} if self.captions else {}),
        }


def inside() -> list[str]:
    """Names of the bundles inside the package."""
    return sorted(path.parent.name for path in WEIGHTS_FOLDER.glob(f"*/{CONFIG}"))


def find(name_or_folder: str | Path | None, default: str | None = None) -> Path:
    """Folder of a bundle: weights inside the package by name, or any folder that holds a config.

    Args:
        name_or_folder: The name or the folder; ``None`` is the default.
        default: Name of weights inside the package; ``None`` is `DEFAULT_WEIGHTS`.

    Raises:
        BundleError: If the folder holds no config, or the default weights are not inside the package.
        UsageError: If it is neither a name nor a folder.
    """
    default = default or DEFAULT_WEIGHTS
    if name_or_folder is None:
        folder = WEIGHTS_FOLDER / default
        if not (folder / CONFIG).is_file():
            raise BundleError(
                f"the default weights {default} are not inside this installation",
                do="Name a bundle folder with --model, or install a wheel of TextRay that holds them",
            )
        return folder
    names = inside()
    if str(name_or_folder) in names:
        return WEIGHTS_FOLDER / str(name_or_folder)
    folder = Path(name_or_folder)
    if not folder.is_dir():
        error = unknown_name("bundle", str(name_or_folder), names or [default])
        raise type(error)(error.what, expected=f"{error.expected}, or a bundle folder", do=error.do)
    if not (folder / CONFIG).is_file():
        raise BundleError(
            f"{folder} holds no bundle", came=f"no {CONFIG}", expected="a folder that textray export wrote"
        )
    return folder


def seal(
    folder: str | Path,
    *,
    name: str,
    version: str,
    model: str,
    form: str,
    model_config: Mapping[str, Any],
    threshold: float,
    text_encoder: str | None,
    provenance: Mapping[str, Any],
    zone_rows: tuple[float, float] = ZONE_ROWS,
    zone_thresholds: Sequence[float] | None = None,
    text_free: TextFree | None = None,
    captions: Sequence[str] = (),
) -> Bundle:
    """Write the config of a bundle whose other files are in place, and load it as a user would.

    Args:
        folder: Folder with all files but ``config.json``.
        name: Name of the bundle.
        version: Version of the weights.
        model: Registry name of the network.
        form: Which form of it.
        model_config: Fields of its config dataclass, JSON values.
        threshold: Probability from which a pixel is lesion, in (0, 1).
        text_encoder: Registry name of the encoder of the bank, ``None`` where the network reads no text.
        provenance: Data, epoch, terms, or whatever else is known; JSON values.
        zone_rows: Heights that split the zones of pixels.
        zone_thresholds: Probabilities from which the network writes a zone, six; ``None`` where it writes no report.
        text_free: What a run without a text does; ``None`` is ``generated`` where the network writes a report.
        captions: What the rows of the bank say, where they are not the zone sentences.

    Raises:
        BundleError: If a file is missing or does not fit the others.
        OutputError: If the config cannot be written.
    """
    folder = Path(folder)
    text: dict[str, Any] | None = None
    if text_encoder is not None:
        bank = parse_bank(read_file(folder, BANK), rows=len(captions) or BANK_ROWS)
        text = {"encoder": text_encoder, "tokens": bank.features.shape[1], "width": bank.features.shape[2]}
    zones: dict[str, Any] = {"rows": list(zone_rows), "columns": list(ZONE_COLUMNS)}
    # Only where they say something: the hash of a bundle that writes no report stays what it was before there were any.
    if zone_thresholds is not None:
        zones["thresholds"] = list(zone_thresholds)
    if text is not None:
        text |= {"free": text_free} if text_free is not None else {}
        text |= {"captions": list(captions)} if captions else {}
    config = sealed_config(
        folder,
        name=name,
        version=version,
        model=model,
        form=form,
        model_config=model_config,
        provenance=provenance,
        files=expected_files(text_encoder),
    )
    config |= {"text": text, "zones": zones, "threshold": threshold}
    write_config(folder, config)
    return Bundle.load(folder)


def _from_config(folder: Path, config: dict[str, Any]) -> Bundle:
    text = config.get("text")
    encoder = None if text is None else str(text["encoder"])
    sealed = read_sealed(
        folder,
        config,
        keys=_KEYS,
        files=expected_files(encoder),
        decides=("input", "text", "threshold", "zones"),
    )
    rows = tuple(float(row) for row in config["zones"]["rows"])
    if len(rows) != 2 or not 0 < rows[0] < rows[1] < 1 or tuple(config["zones"]["columns"]) != ZONE_COLUMNS:
        raise BundleError(
            "zone split of the bundle is wrong", came=config["zones"], expected="two rows rising in (0, 1)"
        )
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
    zone_thresholds, text_free = own_report.announced(config["zones"], text)
    return Bundle(
        **vars(sealed),
        threshold=threshold,
        text_encoder=encoder,
        tokens=tokens,
        width=width,
        captions=known_captions.announced(text, writes=zone_thresholds is not None),
        zone_rows=(rows[0], rows[1]),
        zone_thresholds=zone_thresholds,
        text_free=text_free,
    )


DEFAULT_GROUNDING_WEIGHTS = "sentence_grounding_small"
"""Name of the grounding bundle that is used where none is asked for."""

Sentences = Literal["clauses", "caption", "split"]
"""How training texts became sentences: a caption's clauses by its commas, the caption as one, a report's sentences."""

_GROUNDING_KEYS = {"format", "task", "name", "version", "model", "input", "text", "map", "width", "provenance", "files"}
_GROUNDING_DECIDES = ("input", "text", "map", "width")
_MOST_CELLS = 1024


@dataclass(frozen=True, kw_only=True)
class GroundingText:
    """How a phrase becomes what the text graph reads.

    Attributes:
        encoder: Registry name of the text encoder, or ``own``.
        laterality: Whose left and right the training texts meant.
        lower: Words are lower-cased.
        most_pieces: Longest text in pieces, the two marks included.
        aggregation: How pieces become words, words sentences and sentences a report.
        sentences: How texts became sentences.
    """

    encoder: str
    laterality: Laterality
    lower: bool
    most_pieces: int
    aggregation: Aggregation
    sentences: Sentences

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {**asdict(self), "laterality": str(self.laterality)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GroundingText:
        """Build from what `to_dict` gave.

        Raises:
            BundleError: If a value is impossible.
            KeyError, TypeError, ValueError, UsageError: If one is missing or of another kind.
        """
        found = cls(
            encoder=str(values["encoder"]),
            laterality=Laterality(values["laterality"]),
            lower=values["lower"],
            most_pieces=int(values["most_pieces"]),
            aggregation=Aggregation(**values["aggregation"]),
            sentences=values["sentences"],
        )
        if not 3 <= found.most_pieces <= MOST_TOKENS or not isinstance(found.lower, bool):
            raise BundleError("text settings of the bundle are impossible", came=dict(values))
        if found.sentences not in get_args(Sentences):
            raise BundleError(
                "the bundle cuts texts in an unknown way", came=found.sentences, expected=", ".join(get_args(Sentences))
            )
        return found


@dataclass(frozen=True, kw_only=True)
class GroundingBundle(Sealed):
    """A verified bundle of a grounding network.

    Attributes:
        text: How phrases are read.
        map_size: Height and width of the map of one phrase, in cells.
        width: Width D of the space that film and phrase share.
    """

    text: GroundingText
    map_size: tuple[int, int]
    width: int

    @classmethod
    def load(cls, name_or_folder: str | Path | None = None) -> GroundingBundle:
        """Find a grounding bundle and verify each of its files.

        Args:
            name_or_folder: Name of weights inside the package, or a folder; ``None`` is `DEFAULT_GROUNDING_WEIGHTS`.

        Raises:
            BundleError: If a file is missing, cut off or altered, or the weights are for another task.
            UsageError: If there is no bundle of that name.
        """
        bundle = open_sealed(find(name_or_folder, DEFAULT_GROUNDING_WEIGHTS), "grounding", _grounding_from_config)
        log.debug("grounding bundle %s %s verified", bundle.name, bundle.sha256[:12])
        return bundle

    def vocabulary(self) -> WordPiece:
        """The word pieces.

        Raises:
            BundleError: If the file is no vocabulary.
        """
        return WordPiece(read_pieces(self.read("vocab.txt")), lower=self.text.lower)

    def describe(self) -> dict[str, Any]:
        """What `textray info` and the records of runs say of the bundle."""
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


def load_any(name_or_folder: str | Path | None = None) -> Bundle | GroundingBundle:
    """A bundle of whichever task; raises as the two do."""
    folder = find(name_or_folder)
    config = parse_json(read_file(folder, CONFIG), CONFIG)
    return GroundingBundle.load(folder) if task_of(config) == "grounding" else Bundle.load(folder)


def seal_grounding(
    folder: str | Path,
    *,
    name: str,
    version: str,
    model: str,
    form: str,
    model_config: Mapping[str, Any],
    text: GroundingText,
    map_size: tuple[int, int],
    width: int,
    provenance: Mapping[str, Any],
) -> GroundingBundle:
    """Write the config of a grounding bundle whose other files are in place, and load it as a user would.

    Args:
        folder: Folder with all files but ``config.json``.
        name: Name of the bundle.
        version: Version of the weights.
        model: Registry name of the network.
        form: Which form of it.
        model_config: Fields of its config dataclass, JSON values.
        text: How phrases are read.
        map_size: Height and width of the map of one phrase, in cells.
        width: Width D of the common space.
        provenance: Data, epoch, terms, or whatever else is known; JSON values.

    Raises:
        BundleError: If a file is missing or does not fit the others.
        OutputError: If the config cannot be written.
    """
    folder = Path(folder)
    config = sealed_config(
        folder,
        name=name,
        version=version,
        model=model,
        form=form,
        model_config=model_config,
        provenance=provenance,
        files=GROUNDING_FILES,
    )
    config |= {
        "task": "grounding",
        "text": text.to_dict(),
        "map": {"height": map_size[0], "width": map_size[1]},
        "width": width,
    }
    write_config(folder, config)
    return GroundingBundle.load(folder)


def _grounding_from_config(folder: Path, config: dict[str, Any]) -> GroundingBundle:
    sealed = read_sealed(folder, config, keys=_GROUNDING_KEYS, files=GROUNDING_FILES, decides=_GROUNDING_DECIDES)
    map_size, width = (int(config["map"]["height"]), int(config["map"]["width"])), int(config["width"])
    if not (min(map_size) > 0 and max(map_size) <= _MOST_CELLS and 0 < width <= MOST_WIDTH):
        raise BundleError(
            "the map of the bundle has an impossible size",
            came=f"{map_size} cells, width {width}",
            expected=f"1 to {_MOST_CELLS} cells and 1 to {MOST_WIDTH}",
        )
    return GroundingBundle(**vars(sealed), text=GroundingText.from_dict(config["text"]), map_size=map_size, width=width)
