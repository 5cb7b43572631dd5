"""The ONNX runtime behind a bundle: arrays in, raw scores out."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load

from textray.errors import BundleError, ShapeError, TextRayError, UsageError
from textray.inference.bank import Prompt
from textray.inference.bundle import BaseBundle, Bundle
from textray.inference.bundle_files import WEIGHTS
from textray.records import ZONE_NAMES

log = logging.getLogger(__name__)

MOST_THREADS = 16  # by default; a small network gains nothing from more
MOST_ASKED = 512
MOST_MEMORY = 3 << 30  # bytes that graphs may compute with
MOST_SECONDS = 600.0
"""Longest run of a graph: a bundle is data from elsewhere, and its graph may have a loop without an end."""
INPUTS = ("image", "text_features", "text_mask")
DENIED = "denied"
"""Further input of networks that read what a report denies."""
OUTPUTS = ("logits", "zone_logits", "attention", "presence", "lungs")
_CGROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def default_threads(threads: int | None = None) -> int:
    """A positive number of threads, at most `MOST_ASKED`; by default one for each processor that this process may use.

    Affinity and the quota of control groups (containers) count; the default is at most `MOST_THREADS`.
    """
    if threads is not None and threads < 1:
        raise UsageError("number of threads is wrong", came=threads, expected="1 or more")
    if threads is not None and threads > MOST_ASKED:
        raise UsageError("number of threads is wrong", came=threads, expected=f"at most {MOST_ASKED}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or max(1, math.ceil(min(usable, _quota(), MOST_THREADS)))


def _quota() -> float:
    """Processors that the control groups of this process allow, at least one; infinite without a quota."""
    quotas = [math.inf]
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for name in ("", controllers, "cpu"):  # version 2, and both ways to mount version 1
                for folder in (
                    _CGROUPS / name / group.lstrip("/"),
                    _CGROUPS / name,
                ):  # a container may see its own as root
                    with suppress(OSError, ValueError):  # no such controller, or no quota
                        quotas.append(_ratio((folder / "cpu.max").read_text().split()))
                    with suppress(OSError, ValueError):
                        quotas.append(_ratio([(folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period")]))
    return max(min(quotas), 1)


def _ratio(words: Sequence[str]) -> float:
    allowed, period = (float(word) for word in words)
    return allowed / period if allowed > 0 and period > 0 else math.inf


class Runtime:
    """A session of a bundle's graph on the CPU; ``outputs`` are the names of the graph's outputs, of `OUTPUTS`.

    The session is given its `default_threads`, so that environment variables set for other programs change nothing.

    Raises:
        BundleError: If the graph cannot be loaded or has another signature.
        UsageError: If ``threads`` is not positive.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.threads = default_threads(threads)
        self.bundle = bundle
        self.bank = bundle.text_bank()
        self._session = open_session(bundle, "model.onnx", self.threads)
        self._inputs = tuple(item.name for item in self._session.get_inputs())
        self.outputs = tuple(item.name for item in self._session.get_outputs())
        self.reads_denial = DENIED in self._inputs
        known = set(self._inputs) <= {*INPUTS, DENIED} and set(self.outputs) <= set(OUTPUTS)
        if not known or "image" not in self._inputs or "logits" not in self.outputs:
            raise BundleError(
                "model.onnx has another signature",
                came=f"{self._inputs} to {self.outputs}",
                expected=f"{INPUTS} and, optionally, {DENIED}, to logits and, optionally, {OUTPUTS[1:]}",
            )
        if bundle.writes_report and "zone_logits" not in self.outputs:
            what = "the bundle has thresholds of zones, but its graph has none"
            raise BundleError(what, came=self.outputs, expected="an output zone_logits")
        if bundle.bounds is not None and not {"presence", "zone_logits"} <= set(self.outputs):
            what = "the bundle judges whether films show a lesion, but its graph does not"
            raise BundleError(what, came=self.outputs, expected="outputs presence and zone_logits")
        if bundle.text_encoder is not None and not set(INPUTS) <= set(self._inputs):
            what = "the bundle has a text bank, but its graph reads no text"
            raise BundleError(what, came=self._inputs, expected=INPUTS)

    def encode(self, prompts: Sequence[int | Prompt]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Text inputs of the graph, as `run` takes them, for prompts: rows inside the text bank, or `Prompt`."""
        features = np.zeros((len(prompts), self.bundle.tokens, self.bundle.width), np.float32)
        mask = np.zeros((len(prompts), self.bundle.tokens), np.float32)
        for i, prompt in enumerate(prompts):
            if prompt is Prompt.NO_REPORT and self.bundle.writes_report:
                mask[i] = -1  # a row of zeros would let the network write
            elif not isinstance(prompt, Prompt) and self.bank is not None:
                if not 0 <= prompt < len(self.bank.mask):
                    raise ShapeError(
                        "row is outside the text bank", came=prompt, expected=f"0..{len(self.bank.mask) - 1}"
                    )
                features[i], mask[i] = self.bank.features[prompt], self.bank.mask[prompt]
        return features, mask

    def run(
        self,
        image: NDArray[np.float32],
        text_features: NDArray[np.float32],
        text_mask: NDArray[np.float32],
        denied: NDArray[np.float32] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Run the network on images ``(B, C, h, w)``, texts ``(B, L, D)`` and their masks ``(B, L)``, 1 at tokens.

        A mask of zeros is no text: the network writes its own report where it can. One of -1 is no report, and none
        is to be written. ``denied`` ``(B, 6)`` is 1 at zones that a person denies, for networks that read it. The
        result has ``logits`` ``(B, 1, h, w)`` and, where the network has them, ``zone_logits`` ``(B, 6)``,
        ``attention`` ``(B, 1, h', w')``, not negative, of its own size, ``presence`` ``(B, 1)`` and ``lungs``
        ``(B, 2, h', w')``.

        Raises:
            ShapeError: If an array has another shape than the bundle's config says.
            TextRayError: If the network fails or its scores are not finite.
        """
        bundle, batch = self.bundle, len(image)
        size = (batch, bundle.preprocess.channels, *bundle.preprocess.size)
        text = (batch, bundle.tokens, bundle.width)
        zones = (batch, len(ZONE_NAMES))
        wanted = {
            "image": (image, size),
            "text_features": (text_features, text),
            "text_mask": (text_mask, text[:2]),
            DENIED: (np.zeros(zones, np.float32) if denied is None else denied, zones),
        }
        feeds = {}
        for name in self._inputs:
            array, shape = wanted[name]
            if array.shape != shape:
                raise ShapeError(f"{name} does not fit the network", came=array.shape, expected=shape)
            feeds[name] = np.ascontiguousarray(array, dtype=np.float32)
        outputs = dict(zip(self.outputs, run_session(self._session, self.outputs, feeds), strict=True))
        shapes: dict[str, tuple[int | str, ...]]
        shapes = {"logits": (batch, 1, *bundle.preprocess.size), "zone_logits": zones, "presence": (batch, 1)}
        for name, values in outputs.items():
            any_size = values.shape[2:] if values.ndim == 4 else ("h", "w")  # of the locator's map
            check_output(name, values, shapes.get(name, (batch, 2 if name == "lungs" else 1, *any_size)))
            if name == "attention" and (values < 0).any():
                raise _failure("the network gave a negative attention")
        return outputs


def check_output(name: str, values: NDArray[np.float32], shape: tuple[int | str, ...]) -> None:
    """Refuse outputs that are not finite or of other shapes than the bundle states: a bundle is data from elsewhere."""
    if values.shape != shape or values.size == 0:
        raise ShapeError(f"{name} have another shape", came=values.shape, expected=shape)
    if not np.isfinite(values).all():
        raise _failure(f"the network gave {name} that are not finite")


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of raw scores, of any shape."""
    small = np.exp(-np.abs(logits))  # exp(-|x|) cannot overflow
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def open_session(bundle: BaseBundle, file: str, threads: int) -> Any:  # noqa: ANN401 -- onnxruntime ships no types
    """Load a graph of a bundle on the CPU; refuse one made for other weights.

    A graph with external data is refused too: onnxruntime would read files at and below the present folder, whatever
    they are, and their bytes would end as numbers in a record. So is onnxruntime's own format, which may hold such.

    A graph that names the hash of the bundle's weights gets them from there; one that does not is whole, as of old.
    """
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave their processor
    options.add_session_config_entry("session.use_env_allocators", "1")
    _limit_memory()
    options.log_severity_level = 3  # errors only: the graph optimiser's remarks are not for users
    graph = bundle.read(file)
    if b"\x08location" in graph or b"\0location" in graph:  # the key of such a file, after its length
        raise BundleError(f"{file} of bundle {bundle.name} points to further files", do="Use another bundle")
    if graph[4:8] == b"ORTM":
        raise BundleError(f"{file} of bundle {bundle.name} is in onnxruntime's own format", expected="an ONNX graph")
    try:
        if bundle.files[WEIGHTS]["sha256"].encode() in graph:
            graph = b"".join([graph, *_initializers(graph, bundle.read(WEIGHTS))])
        return onnxruntime.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its compiled module only
        raise BundleError(
            f"{file} of bundle {bundle.name} cannot be loaded",
            came=str(error)[:300],
            do="Update onnxruntime, or export the checkpoint again with: textray export",
        ) from error


@cache
def _limit_memory() -> None:
    """Give the graphs of this process `MOST_MEMORY` together; one that asks for more fails before it is taken."""
    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    place = onnxruntime.OrtMemoryInfo("Cpu", kinds[0], 0, kinds[1])
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(MOST_MEMORY, -1, -1, -1))


def _initializers(graph: bytes, weights: bytes) -> Iterator[bytes]:
    """The weights that a graph names, in single precision: protobuf joins what follows a message to it."""
    for name, array in load(weights).items():
        named = b"network." + name.encode()  # as the exporter's modules call it
        if named in graph and array.dtype.kind == "f":
            shape = b"".join(b"\x08" + _varint(length) for length in array.shape)
            tensor = shape + b"\x10\x01" + _field(8, named) + _field(9, array.astype("<f4").tobytes())  # 1: float32
            yield _field(7, _field(5, tensor))  # the model's graph, and in it an initializer


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def run_session(session: Any, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:  # noqa: ANN401 -- as above
    """Run a graph, for `MOST_SECONDS` at most; its outputs as float32, in the order of ``names``."""
    options = onnxruntime.RunOptions()
    watch = threading.Timer(MOST_SECONDS, setattr, (options, "terminate", True))
    watch.daemon = True
    watch.start()
    try:
        outputs = session.run(list(names), feeds, options)
    except Exception as error:  # onnxruntime raises classes of its compiled module only
        if options.terminate:
            raise _failure("the network did not come to an end", came=f"{MOST_SECONDS:g} s") from error
        raise _failure("the network failed", came=str(error)[:300]) from error
    finally:
        watch.cancel()
    return [np.asarray(value, np.float32) for value in outputs]


def _failure(what: str, came: str | None = None) -> TextRayError:
    """The error for a graph that runs, but gives no result."""
    do = "Use other weights, or report this with the film"
    return TextRayError(what, came=came, expected="finite numbers in seconds", do=do, code="E_NETWORK")
