"""Worker processes: films are read and segmented in children that may crash, hang or run out of memory.

`Pool` is the parent's side: it hands orders to children, ends those that take too long, and replaces dead ones.
`Worker` is the child's side. Children get paths and words, and answer with JSON and the bytes of one file.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from textray import errors
from textray.errors import InputError, TextRayError
from textray.io.child import Child, ChildError, Message, serve

if TYPE_CHECKING:
    from textray.inference.localizer import Localizer

MOST_WORDS = 10_000
LONGEST_PICTURE = 2048
"""Longest side in pixels of ``picture.png``."""
LONGEST_MAP = 512
"""Longest side in pixels of the map of a phrase."""
_MEMORY = 6 << 30  # bytes that a worker may take beyond its libraries and weights
_KEPT_FILMS, _KEPT_RESULTS = 4, 2
_KEPT_BYTES = 256 << 20  # of the pixels of kept films; the last one stays whatever its size
_BACK_OFF = (0.25, 30.0)  # seconds before a worker that died is started again: the first time, and at most
_START = "from textray.inference.worker import work; work()"


def work() -> None:
    """The whole life of a worker; its arguments are weights for masks and for phrases, and threads."""
    segmenter, localizer, threads = sys.argv[1:4]
    serve(Worker(segmenter or None, localizer or None, int(threads)).answer, _MEMORY)


class Worker:
    """The child's side: loaded weights, and the last films and results."""

    def __init__(self, segmenter: str | None, localizer: str | None, threads: int) -> None:
        import textray

        self._predictor = textray.load(segmenter, threads=threads)
        self._grounding = localizer
        self._localizer: Localizer | None = None  # loaded with the first phrase
        self._films: OrderedDict[str, Any] = OrderedDict()
        self._results: OrderedDict[str, Any] = OrderedDict()
        self._objects: tuple[str, dict[str, bytes]] = "", {}

    def answer(self, order: dict[str, Any], _: bytes) -> Message:
        """The answer to an order, or the error in its place."""
        try:
            answer: Message = getattr(self, f"_{order.pop('do')}")(**order)
        except TextRayError as error:
            parts = {name: getattr(error, name) for name in ("what", "came", "expected", "do", "code")}
            return {"error": type(error).__name__, **{k: v and str(v) for k, v in parts.items()}}, b""
        except MemoryError:
            what, do = "the film takes more memory than a worker may have", "Send a smaller picture"
            return {"error": "InputError", "what": what, "do": do, "code": "E_SIZE"}, b""
        except Exception:  # its words may quote a path or a patient
            return {"error": "TextRayError", "what": "the film cannot be worked on", "code": "E_INTERNAL"}, b""
        return answer

    def _about(self) -> Message:
        """Weights, for the page that says what runs."""
        bundle = self._predictor.bundle
        return {**bundle.describe(), "zone_rows": list(bundle.zone_rows)}, b""

    def _read(self, film: str) -> Message:
        from textray.inference.record import notice_rows

        image = self._film(film)
        grid = image.grid
        facts = {"width": grid.width, "height": grid.height, "sides_from": grid.sides_from, "mirrored": grid.mirrored}
        return {**facts, "format": image.info["format"], "notices": notice_rows(image.notices)}, b""

    def _segment(self, film: str, settings: dict[str, Any]) -> Message:
        prediction = self._result(film, settings)
        return {"record": prediction.record}, self._mask(prediction.mask)

    def _file(self, film: str, settings: dict[str, Any], name: str) -> Message:
        from textray.inference.own_report import caption
        from textray.io.write import overlay, png

        if name == "picture.png":
            return self._picture(film)
        prediction = self._result(film, settings)
        if name == "mask.png":
            return {}, self._mask(prediction.mask)
        if name == "overlay.png":
            drawn = overlay(prediction.image.film, prediction.mask, caption=caption(prediction.record))
            return {}, png(drawn, compress_level=3)
        return {}, self._object(prediction, name.removesuffix(".dcm"))

    def _picture(self, film: str) -> Message:
        from textray.io.page import fit, levels, shrink
        from textray.io.write import png

        image = self._film(film)
        picture = levels(image.film)
        if max(image.grid.shape) > LONGEST_PICTURE:
            picture = shrink(picture, fit(image.grid.shape, LONGEST_PICTURE))
        return {}, png(picture, compress_level=1)

    def _ground(self, film: str, phrase: str, laterality: str) -> Message:
        from textray.inference.bundle import GroundingBundle
        from textray.inference.localizer import Localizer
        from textray.inference.record import notice_rows
        from textray.io.page import fit
        from textray.io.write import png
        from textray.metrics.grounding import enlarge

        image = self._film(film)
        if self._localizer is None:
            self._localizer = Localizer(GroundingBundle.load(self._grounding), self._predictor.threads)
        (found,) = self._localizer.locate(image, [phrase], laterality=laterality)
        values = enlarge(found.map, fit(found.map.shape, min(LONGEST_MAP, max(found.map.shape))))
        low, high = float(found.map.min()), float(found.map.max())
        levels = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
        head = {
            "phrase": found.phrase.phrase,
            "read_as": found.phrase.network_text,
            "read_as_laterality": str(found.phrase.network_laterality),
            "peak": {"row": found.peak[0], "column": found.peak[1], "value": round(found.score, 4)},
            "low": round(low, 4),
            "high": round(high, 4),
            "unknown_words": list(found.unknown),
            "notices": notice_rows(found.notices),
        }
        return head, png(np.rint(levels).astype(np.uint8), compress_level=3)

    def _report(self, text: str, laterality: str) -> Message:
        from textray.inference.record import describe_report
        from textray.text.zones import parse

        return describe_report(parse(_bounded(text), laterality=laterality)), b""

    def _film(self, path: str) -> Any:  # noqa: ANN401 -- an `Image`
        if path not in self._films:
            self._films[path] = self._predictor.preprocess.read(Path(path))
        self._films.move_to_end(path)
        while len(self._films) > 1 and (
            len(self._films) > _KEPT_FILMS
            or sum(4 * film.grid.height * film.grid.width for film in self._films.values()) > _KEPT_BYTES
        ):
            self._films.popitem(last=False)
        return self._films[path]

    def _result(self, film: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401 -- a `Prediction`
        from textray.inference.record import digest

        key = digest({"film": film, **settings})
        if key not in self._results:
            if settings["text"] is not None:
                _bounded(settings["text"])
            prediction = self._predictor.segment(self._film(film), **settings)
            prediction.record["input"]["path"] = None  # of the server, and no concern of a client
            self._results[key] = prediction
        self._results.move_to_end(key)
        while len(self._results) > _KEPT_RESULTS:
            self._results.popitem(last=False)
        return self._results[key]

    @staticmethod
    def _mask(mask: NDArray[np.bool_]) -> bytes:
        from textray.io.write import png

        return png(np.where(mask, np.uint8(255), np.uint8(0)), compress_level=1)

    def _object(self, prediction: Any, kind: str) -> bytes:  # noqa: ANN401 -- as above
        """A DICOM object; all are built together, since they refer to each other."""
        from textray.inference.dicom_out import build
        from textray.records import DicomOut

        if self._objects[0] != prediction.record["key"]:
            self._objects = prediction.record["key"], build(prediction, DicomOut())[0]
        if kind not in self._objects[1]:
            what = "the mask is empty, so there is no Segmentation"
            raise InputError(what, do="Take the SR, which says that nothing was found", code="E_NO_LESION")
        return self._objects[1][kind]


def _bounded(text: str) -> str:
    if (count := len(text.split())) > MOST_WORDS:
        raise InputError(
            "the report is too long", came=f"{count} words", expected=f"at most {MOST_WORDS}", code="E_LONG"
        )
    return text


@dataclass(eq=False)
class _Place:
    """A worker of a pool."""

    child: Child
    films: OrderedDict[str, None] = field(default_factory=OrderedDict)  # that it may still hold
    deaths: int = 0  # in a row
    loaded: bool = False


class Pool:
    """The parent's side: workers that start at once, in threads of their own.

    Args:
        count: Number of workers.
        segmenter: Weights for masks, by name or folder; ``None`` for the default ones.
        localizer: Weights for phrases, likewise.
        threads: Of each worker's network.
        seconds: Time limit of an order.
    """

    def __init__(
        self,
        count: int,
        *,
        segmenter: str | None = None,
        localizer: str | None = None,
        threads: int = 1,
        seconds: float = 60.0,
    ) -> None:
        self.seconds = seconds
        arguments = (segmenter or "", localizer or "", str(threads))
        self._all = [_Place(Child(_START, arguments)) for _ in range(count)]
        self._free: list[_Place] = []
        self._change = threading.Condition()
        self._closed = False
        for place in self._all:
            self._begin(place)

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self._all)

    @property
    def ready(self) -> bool:
        """True while at least one worker has loaded its weights."""
        return any(place.loaded for place in self._all)

    def ask(self, do: str, *, film: str | None = None, **order: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401
        """Give an order to a free worker, best to one that holds the film, and wait for its answer.

        Raises:
            TextRayError: The worker's own error; ``E_WORKER_DIED`` if it died, ``E_TIMEOUT`` if it took too long;
                ``E_BUSY`` if none became free in time.
        """
        place = self._take(film)
        try:
            head, body = place.child.ask(self.seconds, {"do": do, **({} if film is None else {"film": film}), **order})
        except ChildError as error:
            self._bury(place)
            raise _lost(error.reason, self.seconds) from None
        except BaseException:
            self._bury(place)
            raise
        place.deaths = 0
        with self._change:
            self._free.append(place)
            self._change.notify()
            if self._closed:
                place.child.kill()
        if "error" in head:
            kind = getattr(errors, head.pop("error"), TextRayError)
            raise kind(head.pop("what"), **head)
        return head, body

    def close(self) -> None:
        """End all workers; an order that waits for its answer fails."""
        with self._change:
            self._closed, idle = True, self._free
            self._free = []
            self._change.notify_all()
        for place in self._all:
            (place.child.stop if place in idle else place.child.kill)()

    def _take(self, film: str | None) -> _Place:
        with self._change:
            if not self._change.wait_for(lambda: self._free or self._closed, self.seconds) or self._closed:
                raise TextRayError("no worker is free", do="Try again in a few seconds", code="E_BUSY")
            place = next((place for place in self._free if film in place.films), self._free[0])
            self._free.remove(place)
            if film is not None:
                place.films[film] = None
                place.films.move_to_end(film)
                if len(place.films) > _KEPT_FILMS:
                    place.films.popitem(last=False)
            return place

    def _bury(self, place: _Place) -> None:
        place.films.clear()
        place.deaths, place.loaded = place.deaths + 1, False
        self._begin(place)

    def _begin(self, place: _Place) -> None:
        threading.Thread(target=self._start, args=(place,), daemon=True).start()

    def _start(self, place: _Place) -> None:
        """Start a worker, again and again with growing pauses, until it lives."""
        first, most = _BACK_OFF
        while not self._closed:
            if place.deaths:
                time.sleep(min(first * 2 ** (place.deaths - 1), most))
            try:
                place.child.start()
            except (ChildError, OSError):
                place.deaths += 1
                continue
            with self._change:
                if self._closed:
                    break
                place.loaded = True
                self._free.append(place)
                self._change.notify()
            return
        place.child.stop()


def _lost(reason: str, seconds: float) -> TextRayError:
    if reason == "slow":
        what, code = "the work took too long and was ended", "E_TIMEOUT"
        return TextRayError(what, expected=f"at most {seconds:g} s", do="Send a smaller picture", code=code)
    what, do = "the process that worked on this film died", "Try again; if it happens again, report it with the film"
    return TextRayError(what, do=do, code="E_WORKER_DIED")
