"""A grounding bundle: the folder that carries a network which tells where in a film a phrase is true.

    config.json          what the network is, sizes, how texts are cut and joined, provenance, hash of each other file
    image.onnx           image -> local (B, D, h, w), pooled (B, D)
    text.onnx            ids, attention, weights (K, L) -> phrases (K, D), of length one
    vocab.txt            word pieces, one a line: phrases are free, so the text encoder itself is inside
    model.safetensors    the weights in half precision, for both graphs and for torch
    preprocess.json      from a picture to the network's input
    README.md, LICENSE   model card and the weights' own terms

The graphs hold no weights: they get them widened, and compute in single precision. Loading is as strict as that of
`textray.inference.bundle`, and nothing in a bundle is ever executed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from textray.errors import BundleError
from textray.inference.bundle import Bundle, find
from textray.inference.bundle_files import (
    CONFIG,
    GROUNDING_FILES,
    parse_json,
    read_file,
    task_of,
    write_config,
)
from textray.inference.sealed import Sealed, open_sealed, read_sealed, sealed_config
from textray.inference.text_bank import MOST_TOKENS, MOST_WIDTH
from textray.records import Laterality
from textray.text.tokens import Aggregation, WordPiece, read_pieces

log = logging.getLogger(__name__)

DEFAULT_WEIGHTS = "sentence_grounding_small"
"""Name of the grounding bundle that is used where none is asked for."""

Sentences = Literal["clauses", "caption", "split"]
"""How training texts became sentences: a caption's clauses by its commas, the caption as one, a report's sentences."""

_KEYS = {"format", "task", "name", "version", "model", "input", "text", "map", "width", "provenance", "files"}
_DECIDES = ("input", "text", "map", "width")
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
            name_or_folder: Name of weights inside the package, or a folder; ``None`` is `DEFAULT_WEIGHTS`.

        Raises:
            BundleError: If a file is missing, cut off or altered, or the weights are for another task.
            UsageError: If there is no bundle of that name.
        """
        bundle = open_sealed(find(name_or_folder, DEFAULT_WEIGHTS), "grounding", _from_config)
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


def _from_config(folder: Path, config: dict[str, Any]) -> GroundingBundle:
    sealed = read_sealed(folder, config, keys=_KEYS, files=GROUNDING_FILES, decides=_DECIDES)
    map_size, width = (int(config["map"]["height"]), int(config["map"]["width"])), int(config["width"])
    if not (min(map_size) > 0 and max(map_size) <= _MOST_CELLS and 0 < width <= MOST_WIDTH):
        raise BundleError(
            "the map of the bundle has an impossible size",
            came=f"{map_size} cells, width {width}",
            expected=f"1 to {_MOST_CELLS} cells and 1 to {MOST_WIDTH}",
        )
    return GroundingBundle(**vars(sealed), text=GroundingText.from_dict(config["text"]), map_size=map_size, width=width)
