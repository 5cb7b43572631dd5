"""From a published checkpoint to a bundle: `textray import`.

The child process has read the tensors; here each one finds its place by the table of `textray.models.released.keys`, or
the file is refused. From there on a bundle is made in the frame of `textray export`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from textray import registry
from textray.data.base import PARTS, Reader, open_reader
from textray.errors import BundleError, InputError, LayoutError, UsageError
from textray.export.card import IMPORTED_TERMS, imported_card
from textray.export.conventions import CONVENTIONS, Convention
from textray.export.frame import about, bundle_folder, write_common
from textray.export.parity import check_parity, parity_pictures
from textray.export.segmenter import save_bank, write_graph
from textray.export.unpickle import Published, read_published
from textray.inference import bank as known_captions
from textray.inference.bundle import Bundle, seal
from textray.models.base import Network
from textray.models.build import build
from textray.models.released.keys import own_name, published, text_encoder_prefix
from textray.nn.bert import HEADS, TextEncoder, assemble, load_text_encoder, require_files
from textray.training.checkpoints import round_to_half

FORM = "released"
_PARALLEL = "module."
_SHOWN = 5


def import_checkpoint(
    name: str,
    file: str | Path,
    out: str | Path,
    *,
    text_encoder_folder: str | Path | None,
    data: str | None = None,
    root: str | Path | None = None,
) -> dict[str, Any]:
    """Write a bundle from a checkpoint that the authors of a network published.

    Args:
        name: Registry name of the network.
        file: The checkpoint, as its authors published it.
        out: Folder of the bundle; its name is the bundle's. An older bundle there is replaced at the end.
        text_encoder_folder: Has ``vocab.txt`` and ``config.json`` of the frozen text encoder, and ``model.safetensors``
            if the checkpoint does not hold its weights (LViT's never do).
        data: Data set whose captions the bundle knows as they stand, in place of the zone sentences: films with
            captions of zones, or pictures in colour with free ones. The file does not state what it was trained on.
        root: Its folder, with the captions.

    Returns:
        The report: ``model``, ``form``, ``data``, ``file``, ``facts``, ``mapped`` (our name by the published one),
        ``text_encoder`` (where its weights came from), ``dropped`` (tensors that have no use), ``skipped`` (objects
        that were not read), ``notices``, and ``bundle`` (of `Bundle.describe`).

    Raises:
        UsageError: If a name is wrong, a file is missing, or there is no vocabulary.
        OutputError: If ``out`` holds something that is no bundle.
        InputError: If the checkpoint is none, or not one of this network.
        BundleError: If the text encoder's folder does not fit, or ONNX and torch disagree; nothing is written then.
    """
    out = Path(out)
    row = registry.model(name).form(FORM)
    published(name)  # a name without a published checkpoint is refused before anything is read
    convention = _convention(name, data, root)
    hub = registry.text_encoder(convention.text_encoder).hub
    if text_encoder_folder is None:
        raise UsageError(
            convention.no_folder,
            expected=f"--text-encoder DIR, a folder with {', '.join(convention.needed)} of {hub}",
            do=f"Download these files of {hub}, and name their folder",
        )
    require_files(Path(text_encoder_folder), *convention.needed)
    with bundle_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as read:
        source = read_published(file, Path(read))
        tensors, mapped = _sort(name, source)
        taken = {theirs: ours for theirs, ours in mapped.items() if ours is not None}
        state = {ours: tensors[theirs] for theirs, ours in taken.items()}
        if convention.preprocess.colour:  # the weight that reads blue first is turned round
            state[convention.blue_first] = state[convention.blue_first].flip(1)
        network = build(row, {})
        network.load_state_dict(state)
        round_to_half(network)
        network.eval()
        prefix = text_encoder_prefix(name) or ""
        held = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key not in mapped}
        encoder = _encoder(convention, held, Path(text_encoder_folder))
        _check_encoder(encoder, convention)
        dropped = [prefix + key for key in held if key.startswith(HEADS) or key.endswith("position_ids")]
        dropped += [key for key, ours in mapped.items() if ours is None]
        report = {
            "model": name,
            "form": FORM,
            "data": data,
            "file": {"name": source.name, "bytes": source.nbytes, "sha256": source.sha256},
            "facts": source.facts,
            "text_encoder": "checkpoint" if held else "folder",
            "dropped": sorted([*dropped, *source.other]),
            "skipped": list(source.skipped),
            "notices": _notices(encoder, convention),
        }
        _write(folder, network, encoder, convention, report | {"mapped": len(taken)})
    return {**report, "mapped": taken, "bundle": Bundle.load(out).describe()}


def _convention(name: str, data: str | None, root: str | Path | None) -> Convention:
    """What a network expects of the pictures and texts that its checkpoint was trained on."""
    convention = CONVENTIONS[name]
    if data is None:
        if root is not None:
            raise UsageError("a folder of data was named, but no data", came=root, do="Add --data NAME")
        return convention
    row = registry.dataset(data)
    masks = [row for row in registry.DATASETS.values() if row.masks and row.on_disk]
    films = [row.name for row in masks if not row.colour and row.captions == "zones"]
    colour = [row.name for row in masks if row.colour and row.captions == "free" and convention.blue_first]
    if data not in films + colour:
        named = [name for name, convention in CONVENTIONS.items() if convention.blue_first]
        tissue = [row.name for row in masks if row.colour and row.captions == "free"]
        raise UsageError(
            f"no checkpoints of {name} trained on {data} are known",
            expected=f"{', '.join(films)}, or {', '.join(named)} with {', '.join(tissue)}",
            do="Leave out --data and --root for the zone sentences",
        )
    wordings = row.wordings or (None,)  # published networks have learnt the original one, users may have the other
    readers = [open_reader(data, root, captions=wording, missing_captions="text-free") for wording in wordings]
    texts = readers[0].known_captions() if data in colour else _captions_of_films(readers)
    captions = known_captions.distinct(texts)
    if not captions:
        raise UsageError(f"the folder of {data} holds no captions", came=root, do=f"See {row.card}")
    return convention.in_colour(captions) if data in colour else replace(convention, captions=captions)


def _captions_of_films(readers: Sequence[Reader]) -> list[str]:
    """Captions of the parts that are present as they stand, in every wording: counts, capitals, "all left lung" too."""
    texts: set[str] = set()
    for reader, part in product(readers, PARTS):
        with suppress(LayoutError):
            texts |= {sample.report.text for sample in reader.samples(part) if sample.report.text}
    return sorted(texts)


def _sort(name: str, source: Published) -> tuple[dict[str, Tensor], dict[str, str | None]]:
    """All tensors by published names, and our name of each of the network's (``None`` for those to drop)."""
    wanted, prefix = published(name), text_encoder_prefix(name)
    try:
        tensors = load_file(source.tensors)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError("the checkpoint's tensors cannot be read", came=type(error).__name__) from error
    if all(key.startswith(_PARALLEL) for key in tensors):  # saved by a training on several GPUs
        tensors = {key.removeprefix(_PARALLEL): value for key, value in tensors.items()}
    given = {key: tuple(v.shape) for key, v in tensors.items() if prefix is None or not key.startswith(prefix)}
    missing = [key for key in wanted if key not in given]
    unknown = [key for key in given if key not in wanted]
    shapes = [f"{k} {given[k]} for {shape}" for k, shape in wanted.items() if k in given and given[k] != shape]
    if missing or unknown or shapes:
        problems = [
            f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
            for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
            if keys
        ]
        released = [row.name for row in registry.MODELS.values() if any(form.name == FORM for form in row.forms)]
        fits = [row for row in released if given == published(row)]
        raise InputError(
            f"the checkpoint is not one of {name}",
            came="; ".join(problems),
            expected=f"the {len(wanted)} tensors of the published network"
            + (f", and its text encoder's under {prefix}" if prefix else ""),
            do=f"It is a {fits[0]}: name that" if fits else "Name the network that the checkpoint was trained as",
            code="E_KEYS",
        )
    for key in wanted:
        value = tensors[key].half() if tensors[key].ndim > 1 else tensors[key]
        if not torch.isfinite(value).all():
            raise InputError(
                "the checkpoint has numbers that are not finite, or too large for half precision",
                came=key,
                expected="weights of a network that works",
                code="E_KEYS",
            )
    return tensors, {key: own_name(name, key) for key in wanted}


def _encoder(convention: Convention, held: dict[str, Tensor], folder: Path) -> TextEncoder:
    """The frozen text encoder, from the tensors that the checkpoint holds of it, or else from the folder."""
    if not held:
        return load_text_encoder(convention.text_encoder, folder=folder, max_tokens=convention.max_tokens)
    try:
        return assemble(convention.text_encoder, folder, held, max_tokens=convention.max_tokens)
    except BundleError as error:
        raise BundleError(
            f"the checkpoint's text encoder and the folder named do not fit: {error.what}",
            came=error.came,
            expected=error.expected,
            do="Name the folder of the text encoder that the network was trained with",
        ) from error


def _check_encoder(encoder: TextEncoder, convention: Convention) -> None:
    """Refuse an encoder of another width, or one that does not know words of the texts."""
    row = registry.text_encoder(convention.text_encoder)
    if encoder.width != row.width:
        raise BundleError(
            "the text encoder has another width than the network reads", came=encoder.width, expected=row.width
        )
    unknown = encoder.tokenizer.token_to_id("[UNK]")
    if strange := [text for text in convention.texts if unknown in encoder.tokens(text)]:
        raise BundleError(
            f"the text encoder's vocab.txt lacks words of {len(strange)} of the {len(convention.texts)} texts",
            came=strange[0],
            expected=f"the whole vocab.txt of {row.hub}",
            do="Download it again",
        )


def _notices(encoder: TextEncoder, convention: Convention) -> list[dict[str, str]]:
    """Warning of a suspicious vocabulary: that of another BERT has the same size and would give wrong masks."""
    hub, number = registry.text_encoder(convention.text_encoder).hub, convention.landmark_id
    found = encoder.tokenizer.token_to_id(convention.landmark)
    if found is not None and number in (None, found):
        return []
    place = "" if number is None else f" as number {number}"
    return [
        {
            "code": "W_VOCABULARY",
            "text": f"vocab.txt does not hold the word {convention.landmark}{place}, which that of {hub} does; with "
            "another vocabulary the network reads other words than in its training.",
            "remedy": f"Take vocab.txt of {hub}.",
        }
    ]


def _write(
    folder: Path, network: Network, encoder: TextEncoder, convention: Convention, report: Mapping[str, Any]
) -> None:
    """Write all files of the bundle and compare its graph with torch."""
    terms = " ".join([IMPORTED_TERMS, *([] if report["data"] is None else [registry.dataset(report["data"]).terms])])
    # Padding too is attended, so every position counts as a token.
    bank, preprocess = save_bank(folder, *convention.encode(encoder, convention.texts)), convention.preprocess
    write_graph(network, folder / "model.onnx", preprocess, bank[0].shape[1:])
    parameters = sum(p.numel() for p in network.parameters())
    card = imported_card(folder.name, report, parameters=parameters, convention=convention)
    write_common(folder, network, preprocess, card=card, terms=terms)
    facts = {"network": report["model"], "form": FORM, "config": {}, "version": version("textray"), "imported": report}
    bundle = seal(
        folder,
        **about(folder, facts, "imported", terms=terms),
        threshold=0.5,
        text_encoder=convention.text_encoder,
        captions=convention.captions,
    )
    check_parity(bundle, network, parity_pictures(None, preprocess))
