"""What a run will do: everything that can go wrong before the network is loaded is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from textray.data.texts import TextTable, Words, table_notices
from textray.errors import UsageError
from textray.inference.edit import check as check_edit
from textray.inference.inputs import Item, collect
from textray.inference.own_report import TextFree
from textray.io.walk import LeftOut
from textray.io.write import check_writable
from textray.records import Laterality, Notice
from textray.text.cleaning import is_blank


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, fixed before the network is loaded.

    Attributes:
        out: Output folder.
        items: Files to work on.
        left_out: Paths that were not looked at.
        words: Words by position in ``items``; the others have none.
        laterality: Convention of words that bring none of their own.
        strict_text: Refuse words that name no zone.
        overwrite: Work again on what is finished.
        text_free: What pictures without words get, ``None`` for what the weights say.
        edit: Correction of the reports that the network writes.
        notices: Warnings about the run as a whole.
    """

    out: Path
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    words: dict[int, Words] = field(default_factory=dict)
    laterality: Laterality = Laterality.PATIENT
    strict_text: bool = False
    overwrite: bool = False
    text_free: TextFree | None = None
    edit: str | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def sides(self) -> list[Laterality]:
        """The conventions that the words of this run use."""
        used = {words.laterality or self.laterality for words in self.words.values()}
        return sorted(used | ({self.laterality} if self.edit is not None else set()))


def plan(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    text: str | None = None,
    texts: TextTable | None = None,
    laterality: Laterality = Laterality.PATIENT,
    strict_text: bool = False,
    overwrite: bool = False,
    text_free: TextFree | None = None,
    edit: str | None = None,
) -> Plan:
    """Look at everything that can go wrong before the network is loaded.

    Args:
        inputs: Files, folders or patterns.
        out: Output folder; made if it is not there.
        text: Words for every picture.
        texts: Words by picture; pictures that it does not name go without.
        laterality: Whose left and right the words mean, where the table does not say.
        strict_text: Refuse words that name no zone.
        overwrite: Work again on what is finished.
        text_free: What pictures without words get, ``None`` for what the weights say.
        edit: Correction of the reports that the network writes, see `textray.inference.edit`.

    Raises:
        UsageError: If an input does not exist, the table does not fit, or the correction is not understood.
        OutputError: If the output folder cannot be written to, or an input would be overwritten.
    """
    if edit is not None:
        check_edit(edit, laterality, text=text, text_free=text_free)
        if texts is not None:
            raise UsageError("both reports and a correction were given", expected="--texts or --edit")
    out = Path(out)
    items, left_out = collect(inputs, out)
    notices: list[Notice] = []
    words: dict[int, Words] = {}
    if texts is not None:
        words, unknown = texts.match([item.path for item in items])
        words = {i: found for i, found in words.items() if found.text is not None}
        notices = table_notices(texts, unknown)
    elif not is_blank(text):
        words = dict.fromkeys(range(len(items)), Words(text=text))
    check_writable(out)
    return Plan(
        out=out,
        items=tuple(items),
        left_out=tuple(left_out),
        words=words,
        laterality=laterality,
        strict_text=strict_text,
        overwrite=overwrite,
        text_free=text_free,
        edit=edit,
        notices=tuple(notices),
    )
