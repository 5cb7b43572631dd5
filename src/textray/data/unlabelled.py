"""Pictures whose masks nobody has drawn, and their reports: a folder and a table. Free of torch.

The table is the one that `textray segment --texts` reads, and the words are understood as they are there, so whose left
and right they mean is said in the table or by the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from textray.data.base import Reader, Sample, Split, name_some, naming
from textray.data.texts import TextTable, table_notices
from textray.errors import DataError, LayoutError, UsageError
from textray.io.names import plain_path, stem
from textray.io.read import detect, read_grid
from textray.io.write import is_own_picture
from textray.records import Laterality, Report, Zones
from textray.rows import DatasetRow
from textray.text.cleaning import clean
from textray.text.report import parse

log = logging.getLogger(__name__)

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_HEAD = 1024  # bytes that tell what a file is
_MEANT = {Laterality.PATIENT: "the patient's", Laterality.VIEWER: "the viewer's", Laterality.UNKNOWN: "unknown"}
_PICTURES = frozenset({"png", "jpeg", "dicom"})
_COLOUR = frozenset({"png", "jpeg", "a TIFF picture"})


def unlabelled_samples(
    folder: str | Path,
    row: DatasetRow,
    *,
    texts: str | Path | None = None,
    laterality: Laterality = Laterality.PATIENT,
    captions: Collection[str] = (),
    colour: bool = False,
    known: Reader | None = None,
) -> list[Sample]:
    """List the pictures below a folder, each with its report where there is one, to be learnt from beside a data set.

    Files are known by their content, whatever they are called; hidden files, those of other kinds and this tool's own
    results are left out, and their number is logged. Nobody tells whose the pictures are, so each is a patient of its
    own: whether a patient is in the data set's other splits cannot be found out here.

    Args:
        folder: Where the pictures are, at any depth.
        row: The data set that they go with.
        texts: Table ``image,text[,laterality]``; pictures that it does not name have no report.
        laterality: Whose left and right the words mean, where the table does not say.
        captions: Of a data set with free captions, all of them: a network knows no others.
        colour: True where pictures are read in colour.
        known: The data set's reader; a picture that is called as one of its is refused, for it would be learnt from
            twice, or select or be scored as well.

    Returns:
        Samples of ``fit`` without ``mask_path``, in the order of their paths; ``image_id`` is the path below the
        folder.

    Raises:
        LayoutError: If there is no such folder, or no picture in it.
        UsageError: If the table does not fit, or its words cannot be placed beside those of the data set.
        DataError: If a picture is one of the data set.
    """
    folder = Path(folder)
    paths = _pictures(folder, _COLOUR if colour else _PICTURES)
    names = set() if known is None else {stem(sample.image_path.name).casefold() for sample in _all_of(known)}
    shared = [plain_path(path.relative_to(folder)) for path in paths if stem(path.name).casefold() in names]
    if shared:
        raise DataError(
            f"{len(shared)} pictures of {folder} have the names of pictures of {row.name}",
            came=name_some(shared),
            expected="pictures that the data set does not hold",
            do="Take them out of the folder; to hide masks of a data set, set data.labelled_fraction",
        )
    reports = _reports(paths, row, texts, laterality, captions) if texts is not None else {}
    silent = Report(zones=Zones(), laterality=laterality)
    told = sum(report.text is not None for report in reports.values())
    log.info(
        "%d pictures without masks in %s, %d of them with a report; its left and right are %s unless told",
        len(paths), folder, told, _MEANT[laterality],
    )  # fmt: skip
    return [
        Sample(
            image_id=plain_path(path.relative_to(folder).as_posix()),
            image_path=path,
            mask_path=None,
            report=reports.get(i, silent),
            patient_id=None,
            split="fit",
        )
        for i, path in enumerate(paths)
    ]


def _all_of(reader: Reader) -> Iterator[Sample]:
    for split in _SPLITS:
        try:
            yield from reader.samples(split)
        except LayoutError:  # a part that nobody has downloaded
            continue


def _pictures(folder: Path, kinds: Collection[str]) -> list[Path]:
    if not folder.is_dir():
        raise LayoutError(f"there is no folder {folder}", expected="a folder of pictures (data.unlabelled)")
    found, others = [], 0
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
            continue
        with path.open("rb") as stream:
            kind = detect(stream.read(_HEAD))
        if kind in kinds and not is_own_picture(path):
            found.append(path)
        else:
            others += 1
    if not found:
        raise LayoutError(f"no pictures in {folder}", came=f"{others} other files", expected="PNG, JPEG or DICOM")
    if others:
        log.warning("%d files in %s are no pictures to learn from and are left out", others, folder)
    return found


def _reports(
    paths: Sequence[Path], row: DatasetRow, texts: str | Path, laterality: Laterality, captions: Collection[str]
) -> dict[int, Report]:
    """Report of each picture that the table names, by position; a text that names no zone is kept without zones."""
    table = TextTable.read(texts)
    words, unknown = table.match(paths)
    for notice in table_notices(table, unknown):
        log.warning("%s: %s", notice.code, notice.text)
    if row.captions == "free":
        return _free({i: clean(found.text) for i, found in words.items() if found.text is not None}, table, captions)
    reports, zoneless = {}, []
    for i, found in words.items():
        if found.text is None:
            continue
        side = found.laterality or laterality
        if (side is Laterality.UNKNOWN) != (row.laterality == "unknown"):
            raise UsageError(
                f"words of {table.path} and captions of {row.name} do not mean the same sides",
                came=f"{side} in line {found.line}, {row.laterality} in {row.name}",
                expected="sides that are known in both, or in neither",
                do="Set data.unlabelled_laterality, or write a column laterality",
            )
        grid = naming(paths[i], read_grid) if side is Laterality.PATIENT else None
        reports[i] = parse(found.text, laterality=side, grid=grid)
        if not reports[i].zones:
            zoneless.append(plain_path(paths[i].name))
    if zoneless:
        some = name_some(zoneless)
        log.warning("W_NO_ZONE: texts of %d pictures name no infected zone and are not told: %s", len(zoneless), some)
    return reports


def _free(texts: dict[int, str], table: TextTable, captions: Collection[str]) -> dict[int, Report]:
    """Captions as they stand; another text is not told, since nothing could be told with it in use."""
    strange = [text for text in texts.values() if text not in captions]
    if strange:
        log.warning("%d texts of %s are no captions of the data set and are not told", len(strange), table.path)
    return {i: Report(zones=Zones(), text=text, free=True) for i, text in texts.items() if text in captions}
