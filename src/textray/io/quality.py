"""Simple tests of a film's pixels that need no network: contrast, polarity and which way is up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from textray.io.levels import distribution
from textray.records import Notice, Pixels

# Mean of 300 training films of QaTa-COV19 v2, mirrored and averaged, as its lowest cosines (rows by even columns).
_CHEST = np.array(
    [
        [0.00, -0.78, 0.01, -0.44],
        [-1.00, 0.58, 0.44, -0.03],
        [-0.05, -0.50, -0.40, 0.18],
        [-0.18, -0.40, 0.02, 0.14],
        [-0.22, -0.15, 0.13, 0.03],
        [-0.12, -0.09, 0.06, 0.01],
    ]
)
_SIDE = 24  # pixels of the reduced film
_NEGATIVE = -0.2  # correlation below it; benchmarks/film_checks.py says how often each bound is met
_TURNED, _MARGIN = 0.35, 0.3  # correlation once turned, and its gain
_MOST_CLIPPED = 0.15  # share of the middle of the film at its darkest and brightest levels
_LEAST_LEVELS = 40  # levels in the middle of the film
_SAMPLE = 512


def film_notices(film: Pixels) -> tuple[Notice, ...]:
    """`W_LOW_CONTRAST`, `W_NEGATIVE_FILM` or `W_NOT_UPRIGHT` for pixels ``(H, W)`` in [0, 1], bright dense."""
    notices = []
    if fault := _poor_contrast(film):
        remedy = "Export the film with its full range of grey levels; the mask of this one may be empty or wrong."
        notices.append(Notice(code="W_LOW_CONTRAST", text=f"The film is hard to read: {fault}.", remedy=remedy))
    small = _reduced(film)
    upright, *turned = (_likeness(np.rot90(small, quarter)) for quarter in range(4))
    turned.append(_likeness(small[::-1]))
    both = -min(turned) > max(_TURNED, max(upright, *turned) + _MARGIN) and min(turned) < upright - _MARGIN
    negative = upright < min(_NEGATIVE, -max(turned))
    if negative or both:
        text = "The film looks like a negative: dense parts are dark."
        remedy = "Invert the film, or give a DICOM file whose PhotometricInterpretation is right."
        notices.append(Notice(code="W_NEGATIVE_FILM", text=text, remedy=remedy))
    if both or (not negative and max(turned) > max(_TURNED, upright + _MARGIN)):
        text = "The film does not look upright."
        remedy = "Turn the film upright; upper, middle and lower in words mean the heights of the picture."
        notices.append(Notice(code="W_NOT_UPRIGHT", text=text, remedy=remedy))
    return tuple(notices)


def _poor_contrast(film: Pixels) -> str | None:
    """What hides the middle of the film, if anything does."""
    middle = film[tuple(slice(side // 5, side - side // 5, max(1, side // _SAMPLE)) for side in film.shape)]
    values, _ = distribution(film)
    black, white = (float((middle == level).mean()) for level in (values.min(), values.max()))
    if black + white > _MOST_CLIPPED:
        shares = ((black, "black"), (white, "white"))
        return " and ".join(f"{share:.0%} of its middle is plain {name}" for share, name in shares if share > 0.01)
    levels = len(np.unique(middle))
    return f"its middle has {levels} grey levels only" if levels < min(_LEAST_LEVELS, middle.size // 4) else None


def _reduced(film: Pixels) -> NDArray[np.float32]:
    sample = film[tuple(slice(None, None, max(1, side // _SAMPLE)) for side in film.shape)]
    picture = PILImage.fromarray(np.ascontiguousarray(sample)).resize((_SIDE, _SIDE), PILImage.Resampling.BOX)
    small = np.asarray(picture, np.float32)
    return np.clip(small, *np.percentile(small, (2, 98)))


def _likeness(film: NDArray[np.float32]) -> float:
    """Correlation of a reduced film with the mean chest film, in [-1, 1]."""
    spread = float(film.std())
    return 0.0 if spread == 0 else float(((film - film.mean()) / spread * _MEAN_FILM).mean())


def _mean_film() -> NDArray[np.float64]:
    places = (np.arange(_SIDE) + 0.5) / _SIDE
    rows = np.cos(np.pi * np.outer(places, np.arange(_CHEST.shape[0])))
    columns = np.cos(np.pi * np.outer(np.arange(0, 2 * _CHEST.shape[1], 2), places))
    film = rows @ _CHEST @ columns
    return np.asarray((film - film.mean()) / film.std())


_MEAN_FILM = _mean_film()
