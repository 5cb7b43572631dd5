"""Pictures without masks, and their reports: a folder and a table. Free of torch.

The table is the one that `textray segment --texts` reads, and the words are understood in the same way: whose left and
right they mean, the table or the caller says.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from textray.data.base import PARTS, Reader, Sample, name_some
from textray.data.cache import refuse_files
from textray.errors import DataError, InputError, LayoutError
from textray.io import raster
from textray.io.files import LeftOut, plain_path, stem, walk
from textray.io.read import detect, read_grid
from textray.records import Grid, Laterality, Notice, Report, Zones
from textray.registry import DatasetRow
from textray.text.cleaning import plain
from textray.text.tables import TextTable, table_notices
from textray.text.zones import UNDEFINED, parse

log = logging.getLogger(__name__)

_HEAD = 1024  # bytes that show the kind of a file
_MEANT = {Laterality.PATIENT: "the patient's", Laterality.VIEWER: "the viewer's", Laterality.UNKNOWN: "unknown"}
KINDS = frozenset({*raster.KINDS, "dicom"})
"""Kinds of files that may be films, those that `textray.io.read` reads."""


def unlabelled_samples(
    folder: str | Path,
    row: DatasetRow,
    *,
    texts: str | Path | None = None,
    laterality: Laterality = Laterality.PATIENT,
    captions: Collection[str] = (),
    colour: bool = False,
    known: Reader | None = None,
    limit: int | None = None,
) -> list[Sample]:
    """List the pictures below a folder, with their reports, to train on beside a data set.

    Files are known by their content, whatever their names. Hidden files, those of other kinds, DICOM objects that are
    no films and results of this tool are left out and counted; what cannot be read is named. The patients are unknown,
    so each picture is a patient of its own, and a patient may be in the data set too.

    Words are dropped where sides matter and cannot be placed: on a film without a left and a right, where it is unknown
    whose sides are meant, or beside a data set whose captions' sides are unknown.

    Args:
        folder: Where the pictures are, at any depth; their paths below it are the samples' names, and their order.
        texts: Table ``image,text[,laterality]``; pictures that it does not name have no report.
        laterality: Whose left and right the words mean, where the table does not say.
        captions: Of a data set with free captions, all of them: a network knows no others.
        known: The data set's reader; a picture with the name of one of its is refused, since it would be in the
            training twice, or select or be scored as well.

    Raises:
        LayoutError: If there is no such folder, or no picture in it.
        UsageError: If the table does not fit.
        DataError: If a picture is one of the data set.
        InputError: If DICOM files are damaged.
    """
    folder = Path(folder)
    pictures = _pictures(folder, limit)
    ids = [plain_path(path.relative_to(folder).as_posix()) for path in pictures]
    names = set() if known is None else _names_of(known)
    shared = [name for name, path in zip(ids, pictures, strict=True) if stem(path.name).casefold() in names]
    if shared:
        raise DataError(
            f"{len(shared)} pictures of {folder} have the names of pictures of {row.name}",
            came=name_some(shared),
            expected="pictures that the data set does not hold",
            do="Take them out of the folder; to hide masks of a data set, set data.labelled_fraction",
        )
    reports = {} if texts is None else _reports(folder, pictures, row, TextTable.read(texts), laterality, captions)
    return [
        Sample(image_id=name, image_path=path, report=reports.get(i, Report(zones=Zones())), split="fit")
        for i, (name, path) in enumerate(zip(ids, pictures, strict=True))
    ]


def _names_of(reader: Reader) -> set[str]:
    """Names of a data set's images in every part that is present."""
    names: set[str] = set()
    for split in PARTS:
        try:
            names |= {stem(sample.image_path.name).casefold() for sample in reader.samples(split)}
        except LayoutError:  # a part that is not on disk
            continue
        except DataError as error:
            log.warning("pictures without masks are not compared with those of %s: %s", split, error)
    return names


def _pictures(folder: Path, limit: int | None) -> dict[Path, Grid | None]:
    """Pictures below a folder, and the grids of those that are DICOM files."""
    if not folder.is_dir():
        raise LayoutError(f"there is no folder {folder}", expected="a folder of pictures (data.unlabelled)")
    found: dict[Path, Grid | None] = {}
    left_out: list[LeftOut] = []
    refused: dict[Path, InputError] = {}
    for path in walk(folder, left_out):
        if limit is not None and len(found) == limit:
            break
        try:
            found |= look(path, left_out)
        except InputError as error:
            refused[path] = error
    refuse_files(refused)
    unread = [one for one in left_out if one.code in ("W_UNREADABLE", "W_LINK_LOOP")]
    for one in unread:
        log.warning("%s %s: %s; left out", one.code, one.path, one.reason)
    others = len(left_out) - len(unread)
    if not found:
        raise LayoutError(
            f"no pictures in {folder}",
            came=f"{others} other files",
            expected="PNG, JPEG, TIFF, BMP, JPEG 2000 or DICOM",
        )
    if others:
        log.warning("W_NOT_IMAGE: %d files in %s are no pictures to train on and are left out", others, folder)
    return found


def look(path: Path, left_out: list[LeftOut]) -> dict[Path, Grid | None]:
    """The picture that a file is by its content, with its grid if it is a DICOM file, or none and why."""
    try:
        with path.open("rb") as stream:
            kind = detect(stream.read(_HEAD))
        if kind in KINDS:
            return {path: read_grid(path) if kind == "dicom" else None}
    except OSError as error:
        left_out.append(LeftOut(path=path, code="W_UNREADABLE", reason=error.strerror or type(error).__name__))
        return {}
    except InputError as error:
        if error.code != "W_NOT_IMAGE":
            raise type(error)(f"{path}: {error.what}", came=error.came, do=error.do, code=error.code) from error
        kind = error.what
    left_out.append(LeftOut(path=path, code="W_NOT_IMAGE", reason=kind))
    return {}


def _reports(
    folder: Path,
    pictures: Mapping[Path, Grid | None],
    row: DatasetRow,
    table: TextTable,
    laterality: Laterality,
    captions: Collection[str],
) -> dict[int, Report]:
    """Report of each picture that the table names, by position; without words and zones where sides are unknown."""
    paths = list(pictures)
    words, unknown = table.match(paths, below=folder)
    for notice in table_notices(table, unknown):
        log.warning("%s: %s", notice.code, notice.text)
    given = {i: found for i, found in words.items() if found.text is not None}
    log.warning("%d of %d pictures without masks have a report in %s", len(given), len(paths), table.path)
    if row.captions == "free":
        return _free({i: str(found.text) for i, found in given.items()}, captions)
    log.warning("left and right in %s are %s, where a line does not say", table.path, _MEANT[laterality])
    reports: dict[int, Report] = {}
    warned: dict[str, tuple[Notice, list[str]]] = {}
    for i, found in given.items():
        sides = (found.laterality or laterality, Laterality(row.laterality))
        reports[i], notices = place_words(str(found.text), *sides, pictures[paths[i]])
        for notice in notices:
            warned.setdefault(notice.code, (notice, []))[1].append(plain_path(paths[i].name))
    for code, (notice, names) in sorted(warned.items()):
        log.warning("%s: %d reports, of %s: %s", code, len(names), name_some(names), notice.text)
    return reports


def place_words(
    text: str, side: Laterality, others: Laterality, grid: Grid | None
) -> tuple[Report, tuple[Notice, ...]]:
    """A report of a film, and warnings; its words are dropped where it cannot be said which sides they mean.

    ``side`` is whose left and right these words mean, ``others`` whose the captions beside them mean.
    """
    report = parse(text, laterality=side, grid=grid)
    notices = report.notices
    if Laterality.UNKNOWN in (side, others) and report.zones != report.zones.mirror():
        notices += (_UNKNOWN,)
    if {notice.code for notice in notices} & {UNDEFINED.code, _UNKNOWN.code}:
        report = Report(zones=Zones())
    return report, notices


_UNKNOWN = Notice(
    code="W_SIDES_UNKNOWN",
    text="It is unknown whose left and right are meant, by these words or in the data set; the words are dropped.",
    remedy="Say whose they are with data.unlabelled_laterality or a column laterality.",
)


def _free(texts: dict[int, str], captions: Collection[str]) -> dict[int, Report]:
    """Captions as the data set has them; other texts are dropped, since a network could not read them in use."""
    known = {plain(caption): caption for caption in captions}
    strange = sum(plain(text) not in known for text in texts.values())
    if strange:
        log.warning("W_UNKNOWN_CAPTION: %d reports are no captions of the data set and are dropped", strange)
    return {
        i: Report(zones=Zones(), text=known[plain(text)], free=True)
        for i, text in texts.items()
        if plain(text) in known
    }
