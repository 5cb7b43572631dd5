"""Reports cut into sentences, captions into clauses: the units that grounding learns from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textray.errors import unknown_name
from textray.text.cleaning import clean

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00b4": "'"})
_GAP = "\ue000"
"""Stands for words that were taken out to hide a person; from the private area, so no report has it."""
_HIDDEN = re.compile(r"_{2,}|\[\*\*[^\]]{0,200}\*\*\]|X{4,}")
_BLANK_LINE = re.compile(r"\n{2,}")
_NUMBER = re.compile(rf"(?:^|(?<=[.!?:;\n])) ?\(?(?P<number>[1-9]\d?)[.)] ?(?=(?P<next>[A-Za-z{_GAP}]))")
_END = re.compile(r"(?<![.!?])(?P<stops>[.!?]++)[\"')\]]*+(?=\s|$)|; |\.(?=[A-Z][a-z])|\n")
"""Without going back, so that a long run of full stops takes no longer than another text."""
_NEVER = ("dr", "mr", "mrs", "ms", "prof", "vs", "e.g", "i.e", "approx", "fig")
_UNLESS_CAPITAL = ("a.m", "p.m", "etc", "no", "st", "q.d", "b.i.d")
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:(?P<never>{'|'.join(map(re.escape, _NEVER))})|{'|'.join(map(re.escape, _UNLESS_CAPITAL))})$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8
_LOOSE = re.compile(r"[ ]+(?=[.,;:!?)])|(?<=\() +")
_REST = re.compile(r"^(?:[ ,;:)*\u2022-]|\.(?!\d))+")
"""What a sentence that was cut off, or a bullet, leaves in front of the next one; ".5 cm" keeps its point."""
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, kw_only=True)
class Sections:
    """What a report says where; empty where it has no such section.

    Attributes:
        findings: What is seen.
        impression: What it means.
    """

    findings: str = ""
    impression: str = ""


def split(text: str, *, min_words: int = 2) -> tuple[str, ...]:
    """Cut a report, or a part of one, into its sentences.

    Decimals, abbreviations, times of day and wrapped lines are no ends; list numbers, blank lines, semicolons and full
    stops without a blank behind them ("normal.Lungs") are. Words that stand for what was taken out to hide a person
    (``___``, ``[** ... **]``, ``XXXX``) are dropped.

    Args:
        text: As it was written.
        min_words: Sentences with fewer words of two letters or more are left out: 2 leaves out "Cardiomegaly.",
            1 only what says nothing.

    Returns:
        The sentences with their full stops, without list numbers.

    Raises:
        InputError: If ``text`` is no string.
    """
    found = (raw for raw in _cut(_prepare(text)) if len(_WORD.findall(raw.replace(_GAP, " "))) >= min_words)
    return tuple(_tidy(raw.replace(_GAP, "")) for raw in found)


def clauses(caption: str) -> tuple[str, ...]:
    """Cut a caption of QaTa-COV19 at its commas: on how many sides, how many areas, where.

    Args:
        caption: Such as "Unilateral pulmonary infection, one infected area, lower left lung."

    Returns:
        The clauses without full stops, in their order.
    """
    parts = (part.strip(" \n\t.") for part in clean(caption).split(","))
    return tuple(part for part in parts if part)


Cut = Literal["clauses", "caption", "split"]
"""A text cut at its commas (``clauses``), not at all (``caption``), or where its sentences end (``split``)."""
CUTS: tuple[Cut, ...] = ("clauses", "caption", "split")


def cut_text(text: str, cut: Cut) -> tuple[str, ...]:
    """Cut a text into the units that grounding learns from; none of a text without words.

    Raises:
        UsageError: If there is no such way to cut.
    """
    if cut == "clauses":
        return clauses(text)
    if cut == "split":
        return split(text, min_words=1)
    if cut != "caption":
        raise unknown_name("way of cutting texts", cut, CUTS)
    return (text.strip(),) if text.strip() else ()


def training_text(sections: Sections) -> str:
    """The part of a report that tells of this image: findings, then impression, with a hard break between them.

    Comparison, indication, history and technique tell of another time or another matter.
    """
    return "\n\n".join(part for part in (sections.findings.strip(), sections.impression.strip()) if part)


def _plain(text: str) -> str:
    """Bring line ends, quotes and marks of any origin to plain ones; no line begins or ends in blanks."""
    if not isinstance(text, str):
        return clean(text)  # refuses it
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(clean(line) for line in lines).translate(_QUOTES).strip()


def _prepare(text: str) -> str:
    """One line for each block, hidden words as gaps, list numbers as line breaks."""
    hidden = _HIDDEN.sub(_GAP, _plain(text).replace(_GAP, " "))
    blocks = (" ".join(block.split()) for block in _BLANK_LINE.split(hidden))
    joined = "\n".join(block for block in blocks if block)
    made: list[str] = []
    at, previous = 0, 0
    for match in _NUMBER.finditer(joined):
        number = int(match["number"])
        goes_on = previous > 0 and number == previous + 1
        if goes_on or (number == 1 and not match["next"].islower()):
            made += [joined[at : match.start()], "\n"]
            at, previous = match.end(), number
    return "".join(made) + joined[at:]


def _cut(text: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(text):
        if match.group().startswith(".") and _goes_on(text, match.start(), match.end()):
            continue
        keep = match.end() if match["stops"] or match.group() == "." else match.start()
        yield text[start:keep]
        start = match.end()
    yield text[start:]


def _goes_on(text: str, stop: int, end: int) -> bool:
    """True for a full stop that belongs to an abbreviation."""
    found = _ABBREVIATED.search(text[max(0, stop - _LONGEST_ABBREVIATION) : stop])
    if found is None:
        return False
    return bool(found["never"]) or not text[end:].lstrip(" \"'(")[:1].isupper()


def _tidy(raw: str) -> str:
    """Without double blanks, blanks before punctuation, and what is left of the sentence before."""
    return _REST.sub("", _LOOSE.sub("", re.sub(r" +", " ", raw))).rstrip(" ,;:")
