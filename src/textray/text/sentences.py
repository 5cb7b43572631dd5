"""Reports cut into sentences and captions into clauses, the units of training for grounding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from textray.errors import unknown_name
from textray.records import SIDES
from textray.text import terms
from textray.text.cleaning import clean

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00b4": "'"})
_GAP = "\ue000"
"""In place of words that were removed to hide a person; from the private area, so no report has it."""
_HIDDEN = re.compile(r"_{2,}|\[\*\*[^\]]{0,200}\*\*\]|X{4,}")
_BLANK_LINE = re.compile(r"\n{2,}")
_NUMBER = re.compile(rf"(?:^|(?<=[.!?:;\n])) ?\(?(?P<number>[1-9]\d?)[.)] ?(?=(?P<next>[A-Za-z{_GAP}]))")
_END = re.compile(r"(?<![.!?])(?P<stops>[.!?]++)[\"')\]]*+(?=\s|$)|; |\.(?=[A-Z][a-z])|\n")
"""Possessive, so that a long run of full stops takes no longer than another text."""
_NEVER = ("dr", "mr", "mrs", "ms", "prof", "vs", "e.g", "i.e", "approx", "fig")
_UNLESS_CAPITAL = ("a.m", "p.m", "etc", "no", "st", "q.d", "b.i.d")
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:(?P<never>{'|'.join(map(re.escape, _NEVER))})|{'|'.join(map(re.escape, _UNLESS_CAPITAL))})$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 8
_LOOSE = re.compile(r"[ ]+(?=[.,;:!?)])|(?<=\() +")
_REST = re.compile(r"^(?:[ ,;:)*\u2022-]|\.(?!\d))+")
"""Marks that a sentence or a bullet leaves in front of the next one; ".5 cm" keeps its point."""
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Sections of a report about its image; empty where the report has none."""

    findings: str = ""
    impression: str = ""


def split(text: str, *, min_words: int = 2) -> tuple[str, ...]:
    """Cut a report, or a part of one, into its sentences.

    Decimals, abbreviations, times of day and wrapped lines do not end a sentence; list numbers, blank lines, semicolons
    and full stops without a blank behind them ("normal.Lungs") do. Marks in place of words that were removed to hide a
    person (``___``, ``[** ... **]``, ``XXXX``) are dropped, and sentences with fewer than ``min_words`` words of two
    letters or more: 2 leaves out "Cardiomegaly.". The others keep their full stops.

    Raises:
        InputError: If ``text`` is not a string.
    """
    kept = (raw for raw in _cut(_prepare(text)) if len(_WORD.findall(raw.replace(_GAP, " "))) >= min_words)
    return tuple(_tidy(raw.replace(_GAP, "")) for raw in kept)


def clauses(caption: str) -> tuple[str, ...]:
    """Cut a caption of QaTa-COV19 at its commas, into status, count and place without full stops."""
    parts = (part.strip(" \n\t.") for part in clean(caption).split(","))
    return tuple(part for part in parts if part)


_HEAD = "|".join(sorted(terms.HEADS | terms.ANATOMY, key=len, reverse=True))
_HEADING = re.compile(
    rf"(?:(?P<start>^|(?<=[.;!?]\s))[ \t#*\d.)]{{0,8}}|(?<=\s))"
    rf"(?P<head>(?i:(?:{_HEAD})(?:[ /&-]{{1,3}}(?:{_HEAD})){{0,6}}))[ \t*]{{0,4}}"
    r"(?P<mark>:[ \t*]{0,4}| [-\u2013\u2014] |(?<=[A-Z]{7}) +(?=[A-Z]?[a-z])|[ \t]*$)",
    re.MULTILINE,
)
_PARAGRAPH = re.compile(r"(?<=\S)[ \t]*\n[ \t]*\n")
_TITLE_END = re.compile(r"(?<=\S)[ \t]*\n|[.;] ")
_MARKUP = re.compile(
    r"</?(?:(?P<block>br|p|div|li|ul|ol|tr|table|h[1-6])|b|i|u|em|strong|span|font|td)(?:\s[^<>]{0,80}|/)?>",
    re.IGNORECASE,
)


def parts(text: str) -> Iterator[tuple[bool, str]]:
    """Cut a report at its headings, each part with whether it describes the image.

    Findings, impression and the like do, and so does what no heading precedes; history, indication, comparison and
    technique do not. Where a report has no findings, such a part ends with its paragraph; a title or a name always ends
    with its line or sentence. Marks of HTML are no words.
    """
    text = _MARKUP.sub(lambda mark: "\n" if mark["block"] else " ", text)
    heads = [(match, kind) for match in _HEADING.finditer(text) if (kind := _kind(match))]
    found = any(_head(match) & {"finding", "findings"} for match, kind in heads if kind == "counts")
    bounds = [(0, 0, "counts")]
    for match, kind in heads:
        start, words = match.start("head"), _head(match)
        if not words <= terms.ANATOMY or bounds[-1][2] != "counts":
            bounds.append((start, start if kind == "counts" and words & terms.ANATOMY else match.end(), kind))
    for (_, body, kind), after in zip(bounds, [*bounds[1:], None], strict=True):
        section = text[body : after[0] if after else None]
        end = _TITLE_END.search(section) if kind == "title" else None
        if kind == "other" and not found:
            end = _PARAGRAPH.search(section)
        if end:
            yield False, section[: end.start()]
            kind, section = "counts", section[end.end() :]
        if section.strip():
            yield kind == "counts", section


def _head(match: re.Match[str]) -> set[str]:
    return set(re.findall(r"[a-z]+", match["head"].lower()))


def _kind(match: re.Match[str]) -> str:
    """What a heading begins: a part that ``counts``, a ``title``, or an ``other`` one; nothing for what is none."""
    words, marked, upper = _head(match), ":" in match["mark"], match["head"].isupper()
    if match["start"] is None and not (upper and match["mark"].strip(" \t") != "-" and (marked or match["mark"])):
        inside = marked and match["head"][0].isupper() and words & (terms.COUNTED_PARTS | terms.OTHER_PARTS)
        if not inside:
            return ""
    if words <= terms.ANATOMY:
        return "counts" if marked else ""
    if words & {*SIDES, "bilateral"}:
        return "counts" if marked and words & terms.COUNTED_PARTS else ""
    if words & terms.OTHER_PARTS or (marked and words & terms.EARLIER):
        return "other"
    if words & terms.COUNTED_PARTS and not words & terms.EARLIER:
        return "counts" if marked or upper or len(words) == 1 else ""
    return "title" if marked and words & terms.TITLES else ""


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
    """The part of a report that describes its image: findings, then impression, with a hard break between them.

    Comparison, indication, history and technique are about another time or another matter.
    """
    return "\n\n".join(part for part in (sections.findings.strip(), sections.impression.strip()) if part)


def _plain(text: str) -> str:
    """Replace line ends, quotes and marks of any origin by plain ones, without blanks around a line."""
    if not isinstance(text, str):
        return clean(text)  # raises
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
    match = _ABBREVIATED.search(text[max(0, stop - _LONGEST_ABBREVIATION) : stop])
    return match is not None and (bool(match["never"]) or not text[end:].lstrip(" \"'(")[:1].isupper())


def _tidy(raw: str) -> str:
    """Remove double blanks, blanks before punctuation, and the rest of the previous sentence."""
    return _REST.sub("", _LOOSE.sub("", re.sub(r" +", " ", raw))).rstrip(" ,;:")
