"""Grounding of phrases in one film: the cosine of a phrase with each place, on the film's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textray.errors import BundleError, ShapeError
from textray.inference.bundle import GroundingBundle
from textray.inference.runtime import check_output, default_threads, open_session, run_session
from textray.metrics.grounding import SIGMA, smooth
from textray.preprocess import Preprocess
from textray.records import SIDES, Grid, Image, Laterality, Notice, ZoneState
from textray.text import prose
from textray.text.clauses import sentences
from textray.text.cleaning import clean
from textray.text.phrases import TurnedPhrase, check, lone_sides, turn
from textray.text.sentences import cut_text
from textray.text.terms import FUNCTION
from textray.text.tokens import Pieces, pad, report_weights
from textray.text.zones import misspelt, quoted

MOST_PHRASES = 64  # that go through the text graph at once
_TINY = 1e-8
_KNOWN = 1024  # phrases that are kept; the oldest goes first


class ImageFeatures(NamedTuple):
    """A film in the common space, not normalised: places ``(B, D, h', w')`` and the whole ``(B, D)``, float32."""

    local: NDArray[np.float32]
    pooled: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """Map of one phrase on one film: the cosine of the phrase with each pixel's place, on the film's own grid."""

    phrase: TurnedPhrase  # as given, and in the viewer's and in the network's convention
    map: NDArray[np.float32]  # (H, W), in [-1, 1]
    peak: tuple[int, int]  # row and column of the highest value, the middle of it if several pixels share it
    unknown: tuple[str, ...]  # words of the phrase that the vocabulary does not have as a whole
    notices: tuple[Notice, ...]

    @property
    def told(self) -> str:
        """The words that the network read: the phrase after its sides were turned."""
        return self.phrase.network_text

    @property
    def score(self) -> float:
        """Value at the peak."""
        return float(self.map[self.peak])


class _Query(NamedTuple):
    """A phrase as the network reads it, the same for all films of one orientation."""

    phrase: TurnedPhrase
    unknown: tuple[str, ...]
    notices: tuple[Notice, ...]
    sides: tuple[str, ...]  # the viewer's, that it names


class Localizer:
    """A loaded grounding bundle, whose network has ``threads``, by default as many as there are processors.

    Raises:
        BundleError: If a graph cannot be loaded or has another signature.
        UsageError: If ``threads`` is not positive.
    """

    def __init__(self, bundle: GroundingBundle, threads: int | None = None) -> None:
        self.bundle, self.threads = bundle, default_threads(threads)
        self._vocabulary = bundle.vocabulary()
        self._image = open_session(bundle, "image.onnx", self.threads)
        self._text = open_session(bundle, "text.onnx", self.threads)
        for file, session, inputs, outputs in (
            ("image.onnx", self._image, {"image"}, {"local", "pooled"}),
            ("text.onnx", self._text, {"ids", "attention", "weights"}, {"phrases"}),
        ):
            names = {item.name for item in session.get_inputs()}, {item.name for item in session.get_outputs()}
            if names != (inputs, outputs):
                raise BundleError(
                    f"{file} has another signature",
                    came=f"{sorted(names[0])} to {sorted(names[1])}",
                    expected=f"{sorted(inputs)} to {sorted(outputs)}",
                )
        self._known: dict[str, NDArray[np.float32]] = {}
        self._pieces = lru_cache(_KNOWN)(self.read)
        self._query = lru_cache(_KNOWN)(self._understand)

    def __repr__(self) -> str:
        return f"Localizer({self.bundle.name!r}, version={self.bundle.version!r}, threads={self.threads})"

    def __getstate__(self) -> tuple[GroundingBundle, int]:
        return self.bundle, self.threads

    def __setstate__(self, state: tuple[GroundingBundle, int]) -> None:
        """Open the bundle anew: a session of the runtime does not leave its process."""
        self.__init__(*state)  # type: ignore[misc]

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to the network's input, and the way back."""
        return self.bundle.preprocess

    @property
    def laterality(self) -> Laterality:
        """Whose left and right the training texts meant."""
        return self.bundle.text.laterality

    def normalise_sides(self, phrase: str, *, laterality: Laterality | str, grid: Grid) -> str:
        """A phrase with its sides turned to those of the training texts; raises as `textray.text.phrases.turn` does."""
        side = Laterality(laterality)
        return turn(phrase, laterality=side, network_laterality=self.laterality, grid=grid).network_text

    def sentences(self, phrase: str) -> tuple[str, ...]:
        """A phrase cut as the training texts were, at least one sentence; none for being of one word."""
        return cut_text(phrase, self.bundle.text.sentences) or (phrase,)

    def read(self, phrase: str) -> Pieces:
        """A phrase in pieces, with the words that are not in the vocabulary; raises as `embed` does."""
        return self._vocabulary.encode(self.sentences(check(phrase)), self.bundle.text.most_pieces)

    def embed(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Bring K phrases into the common space, ``(K, D)`` float32 of length one; known ones are not computed again.

        Their sides are those of the training texts (`normalise_sides`).

        Raises:
            InputError: If nothing of a phrase can be read.
            TextRayError: If the network fails or gives what is not finite.
        """
        vectors = {text: self._known[text] for text in phrases if text in self._known}
        new = [text for text in dict.fromkeys(phrases) if text not in vectors]
        for start in range(0, len(new), MOST_PHRASES):
            part = new[start : start + MOST_PHRASES]
            vectors |= dict(zip(part, self._embed(part), strict=True))
        for text in new:
            self._known[text] = vectors[text]
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
        rows = [vectors[text] for text in phrases]
        return np.stack(rows) if rows else np.zeros((0, self.bundle.width), np.float32)

    def _embed(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        batch = pad([self._pieces(text) for text in phrases])
        weights = report_weights(batch, self.bundle.text.aggregation)
        feeds: dict[str, NDArray[Any]] = {"ids": batch.ids, "attention": batch.attention, "weights": weights}
        (vectors,) = run_session(self._text, ["phrases"], feeds)
        check_output("phrases", vectors, (len(phrases), self.bundle.width))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, _TINY), np.float32)

    def features(self, pixels: NDArray[np.float32]) -> ImageFeatures:
        """Bring films ``(B, C, h, w)``, each as `Preprocess.apply` gives it, into the common space."""
        expected = (len(pixels), self.preprocess.channels, *self.preprocess.size)
        if pixels.shape != expected:
            raise ShapeError("image does not fit the network", came=pixels.shape, expected=expected)
        feeds = {"image": np.ascontiguousarray(pixels, np.float32)}
        local, pooled = run_session(self._image, ["local", "pooled"], feeds)
        check_output("local features", local, (len(pixels), self.bundle.width, *self.bundle.map_size))
        check_output("pooled features", pooled, (len(pixels), self.bundle.width))
        return ImageFeatures(local, pooled)

    def maps(self, pixels: NDArray[np.float32], phrases: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of vectors ``(K, D)`` with each place of films ``(B, C, h, w)``: ``(B, K, h', w')``."""
        return similarity(self.features(pixels).local, phrases)

    def locate(
        self,
        image: Image,
        phrases: Sequence[str],
        *,
        laterality: Laterality | str | Sequence[Laterality] = Laterality.PATIENT,
        sigma: float = SIGMA,
    ) -> tuple[Localization, ...]:
        """Map phrases, any words, on a film, grey or in colour as the weights want it.

        ``laterality`` says whose left and right they mean, for all of them or for each; ``sigma`` is the width of the
        smoothing in cells of the network's map, 0 for none.

        Raises:
            InputError: If a phrase has no words, or its sides cannot be turned; or the film is of the wrong kind.
            ShapeError: If phrases and lateralities differ in number.
        """
        self.preprocess.check(image)
        sides = [Laterality(laterality)] * len(phrases) if isinstance(laterality, str) else list(laterality)
        if len(sides) != len(phrases):
            raise ShapeError("phrases and lateralities differ in number", came=len(sides), expected=len(phrases))
        sides_of_film = Grid(height=1, width=1, orientation=image.grid.orientation)
        queries = [self._query(phrase, side, sides_of_film) for phrase, side in zip(phrases, sides, strict=True)]
        vectors = self.embed([query.phrase.network_text for query in queries])
        coarse = smooth(self.maps(self.preprocess.apply(image)[None], vectors)[0], sigma)
        return tuple(self._localization(query, one, image.grid) for query, one in zip(queries, coarse, strict=True))

    def _understand(self, words: str, side: Laterality, grid: Grid) -> _Query:
        """Read a phrase for films with the orientation of a grid."""
        phrase = turn(words, laterality=side, network_laterality=self.laterality, grid=grid)
        pieces = self._pieces(phrase.network_text)
        # Single letters are pieces of every vocabulary, but no words.
        not_words = [word for word in pieces.unknown if any(map(str.isalnum, word))]
        unknown = tuple(dict.fromkeys([*not_words, *lone_sides(phrase.network_text)]))
        notices = (*phrase.notices, *_of_words(phrase.network_text, pieces, unknown, self.bundle))
        return _Query(phrase, unknown, notices, named_sides(phrase.viewer))

    def _localization(self, query: _Query, coarse: NDArray[np.float32], grid: Grid) -> Localization:
        on_grid = self.preprocess.restore_coarse(coarse, grid)
        peak = find_peak(on_grid)
        notices = (*query.notices, *of_peak(query.sides, peak, grid))
        return Localization(phrase=query.phrase, map=on_grid, peak=peak, unknown=query.unknown, notices=notices)


def similarity(local: NDArray[np.float32], phrases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of vectors ``(K, D)`` with places ``(B, D, h, w)``: ``(B, K, h, w)`` in [-1, 1]."""
    if phrases.ndim != 2 or local.ndim != 4 or phrases.shape[1] != local.shape[1]:
        raise ShapeError("phrases do not fit the film", came=phrases.shape, expected=f"(K, {local.shape[1]})")
    lengths = np.linalg.norm(phrases, axis=1, keepdims=True)
    unit = phrases / np.maximum(lengths, _TINY)
    norms = np.sqrt((local**2).sum(1))[:, None]  # (B, 1, h, w)
    cosine = np.einsum("kd,bdhw->bkhw", unit, local) / np.maximum(norms, _TINY)
    return np.asarray(np.clip(cosine, -1, 1), np.float32)


def find_peak(values: NDArray[np.float32]) -> tuple[int, int]:
    """Row and column of the highest value of a map ``(H, W)``.

    Enlarged maps are flat beyond the centres of their outer cells; of pixels that share the highest value it is the
    one nearest to their middle.
    """
    places = np.argwhere(values == values.max())
    row, column = places[int(((places - places.mean(0)) ** 2).sum(1).argmin())]
    return int(row), int(column)


# Warnings about a phrase and its map.

PLACES_ONLY = frozenset({"one_zone", "some_zones"})
"""Ways of sampling the training texts after which a network knows words of places only."""

DENIED = Notice(
    code="W_DENIED",
    text="The phrase denies; the network does not understand that and looks for what is denied.",
    remedy="Ask for what is there, in a phrase of its own.",
)
NO_PLACE = Notice(
    code="W_NO_PLACE",
    text="These weights know words of places, and the phrase names none: its map may mean anything.",
    remedy="Name a side and a level, such as 'lower left lung'.",
)
OTHER_SIDE = Notice(
    code="W_PEAK_OTHER_SIDE",
    text="The map's peak lies on the side that the phrase does not name: do not rely on it.",
    remedy="Look at the picture; another phrase may find more.",
)
NOTHING_MARKED = Notice(
    code="W_NOTHING_MARKED",
    text="No pixel of a map is above the threshold: its mask is empty.",
    remedy="Lower --threshold; --normalise minmax always marks something.",
)


def _of_words(words: str, pieces: Pieces, unknown: Sequence[str], bundle: GroundingBundle) -> list[Notice]:
    """Warnings about the words of a phrase, of which ``unknown`` are outside of the vocabulary."""
    notices = []
    content = [word for word in unknown if word not in FUNCTION]
    if content:
        text = f"The network does not know {quoted(content)}; that may mean anything to it."
        notices.append(Notice(code="W_UNKNOWN_WORD", text=text, remedy="Say it with other words."))
    cleaned = clean(words)
    clauses = [clause for sentence in sentences(cleaned) for clause in sentence]
    reading = prose.read(cleaned)
    if reading.misspelt:
        notices.append(misspelt(reading.misspelt))
    if any(clause.negated for clause in clauses) or ZoneState.ABSENT in reading.zones.states:
        notices.append(DENIED)
    data = bundle.provenance.get("data")
    sampling = data.get("sentence_sampling") if isinstance(data, dict) else None
    if sampling in PLACES_ONLY and not any(clause.sides or clause.levels for clause in clauses):
        notices.append(NO_PLACE)
    if pieces.cut:
        text = f"The network reads {bundle.text.most_pieces} pieces of a phrase; its end was left out."
        remedy = "Give one sentence for each finding, each as a phrase of its own."
        notices.append(Notice(code="W_PHRASE_CUT", text=text, remedy=remedy))
    return notices


def named_sides(viewer: str | None) -> tuple[str, ...]:
    """Sides on which a phrase by the viewer's sides names a zone; none if it cannot be put so."""
    present = prose.read(clean(viewer)).zones.present if viewer is not None else ()
    levels = len(present) // len(SIDES)
    return tuple(side for i, side in enumerate(SIDES) if any(present[i * levels : (i + 1) * levels]))


def of_peak(sides: Sequence[str], peak: tuple[int, int], grid: Grid) -> list[Notice]:
    """A warning if the peak, row and column, lies on no side that the phrase names."""
    return [OTHER_SIDE] if sides and side_of(peak, grid) not in sides else []


def side_of(peak: tuple[int, int], grid: Grid) -> str:
    """The viewer's side of a film on which a row and column lie."""
    return SIDES[0] if peak[1] + 0.5 < grid.width / 2 else SIDES[1]
