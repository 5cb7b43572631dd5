"""Exceptions of TextRay and the exit code of each.

    TextRayError            E_INTERNAL   exit 1
    ├── UsageError          E_USAGE      exit 2   a name, an option or an argument is wrong
    │   ├── LayoutError     E_LAYOUT     exit 2   a data set's folder has another layout than its card
    │   ├── BundleError     E_BUNDLE     exit 2   weights are missing, altered or of another format
    │   └── OutputError     E_OUTPUT     exit 2   the output folder is not writable
    ├── InputError          E_FORMAT     exit 3   one file (or text) is refused; the others go on
    │   └── DataError       E_DATA       exit 3   a data set's file or row is refused
    ├── ShapeError          E_SHAPE      exit 1   an array or tensor has another shape than declared
    └── DiskError           E_DISK       exit 1   the disk is full or failed while writing

Exit codes of the command line: 0 done, 1 crash, 2 usage, 3 some files refused.
``code=`` gives a finer code (``E_TRUNCATED``, ``E_CONSTANT``, ...) than that of the class.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import ClassVar


class TextRayError(Exception):
    """Base class of all errors: the fault, the value, the expected value, the remedy.

    Args:
        what: The fault, one plain sentence without a final full stop.
        came: The faulty value; left out of the message where ``None``, like the next two.
        expected: A right value.
        do: The remedy, an imperative sentence.
        code: A finer message code than that of the class.
    """

    default_code: ClassVar[str] = "E_INTERNAL"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        came: object = None,
        expected: object = None,
        do: str | None = None,
        code: str | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.what, self.came, self.expected, self.do = what, came, expected, do
        parts = [what.rstrip(".")]
        parts += [f"{word} {value}" for word, value in (("Got", came), ("Expected", expected)) if value is not None]
        if do is not None:
            parts.append(do.rstrip("."))
        super().__init__(". ".join(parts) + ".")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all parts, so that an error passes between processes."""
        return _rebuild, (type(self), self.what, self.came, self.expected, self.do, self.code)


def _rebuild(
    kind: type[TextRayError], what: str, came: object, expected: object, do: str | None, code: str
) -> TextRayError:
    return kind(what, came=came, expected=expected, do=do, code=code)


class UsageError(TextRayError):
    """A name, an option or an argument is wrong."""

    default_code = "E_USAGE"
    exit_code = 2


class LayoutError(UsageError):
    """A data set's folder has another layout than its card."""

    default_code = "E_LAYOUT"


class BundleError(UsageError):
    """Weights are missing, altered, or of another format."""

    default_code = "E_BUNDLE"


class OutputError(UsageError):
    """The output folder is not writable."""

    default_code = "E_OUTPUT"


class InputError(TextRayError):
    """One file or text is refused; the others go on."""

    default_code = "E_FORMAT"
    exit_code = 3


class DataError(InputError):
    """A data set's file or row is refused."""

    default_code = "E_DATA"


class ShapeError(TextRayError):
    """An array or tensor has another shape than declared."""

    default_code = "E_SHAPE"


class DiskError(TextRayError):
    """The disk is full or failed while writing."""

    default_code = "E_DISK"


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


def disk_fault(error: BaseException | None) -> DiskError | None:
    """Build the error for a disk that is full or fails, where that is the cause of another error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            return DiskError(
                "the output cannot be written",
                came=error.strerror,
                do="Free some space, or write to another disk; the same command goes on where this one stopped",
            )
        error = error.__cause__ or error.__context__
    return None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that is not in a list of that kind, such as "model", with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return UsageError(
        f"unknown {kind} {name!r}",
        expected="one of " + ", ".join(names),
        do=f"Did you mean {near[0]!r}?" if near else "Pick one of the names listed.",
    )
