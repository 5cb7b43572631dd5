"""An unpickler that runs nothing: tensors become descriptions, every foreign object an inert placeholder.

A pickle is a program whose instructions name functions of any module and call them. Here every name outside a short
table gives a fresh class that accepts any call, state or item and does nothing with it, so such a program builds only
rubbish. Nothing of torch is needed, and a name is never imported.
"""

from __future__ import annotations

import math
import pickle
from typing import IO, Any, NamedTuple, NoReturn

from textray.errors import InputError

_MOST_AXES = 8
_LONGEST_NAME = 200
_MOST_NAMES = 200  # a checkpoint has some dozens; millions of them would fill memory and the bundle's config

KINDS = {
    "FloatStorage": ("F32", 4),
    "DoubleStorage": ("F64", 8),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
"""Kinds of storages by torch's name: safetensors' name of the type, and bytes of an element."""


def refuse(what: str, came: object = None, *, do: str = "Download it again", code: str = "E_FORMAT") -> NoReturn:
    """Refuse the file.

    Raises:
        InputError: Always.
    """
    raise InputError(what, came=came, expected="a checkpoint as torch.save writes it", do=do, code=code)


class Kind(NamedTuple):
    """Type of a storage's elements.

    A tuple, as the next two are: a pickle can set attributes of any object, but not change a tuple.

    Attributes:
        dtype: Safetensors' name.
        itemsize: Bytes of an element.
    """

    dtype: str
    itemsize: int


class Storage(NamedTuple):
    """A run of bytes that stands elsewhere in the file.

    Attributes:
        kind: Its type.
        key: Its name in the file.
        numel: Elements in it, as announced.
    """

    kind: Kind
    key: str
    numel: int


class TensorView(NamedTuple):
    """Where a tensor's elements lie.

    Attributes:
        storage: The bytes.
        offset: First element.
        shape: Sides.
        stride: Elements from one to the next along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor by itself."""
        return math.prod(self.shape) * self.storage.kind.itemsize

    @property
    def inside(self) -> bool:
        """True where no element lies outside of the storage as announced, and none of it is counted twice."""
        count = math.prod(self.shape)
        last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.stride, strict=True))
        return count <= self.storage.numel and (not count or last < self.storage.numel)


class Placeholder:
    """Stands for an object that is not read; whatever is done to it does nothing."""

    __slots__ = ()

    def __new__(cls, *args: object, **kwargs: object) -> Placeholder:
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Placeholder:
        """Take any arguments, do nothing."""
        return Placeholder()

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Take nothing."""

    def extend(self, items: object) -> None:
        """Take nothing."""

    def add(self, item: object) -> None:
        """Take nothing."""


class Mapping(dict[Any, Any]):
    """Stands for OrderedDict; attributes that a pickle gives it are left out."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Fixed:
    """Base of what all pickles share: one that sets an attribute of it, its class among them, is refused."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        refuse("the checkpoint's pickle changes a function of torch", name[:_LONGEST_NAME])


class _Rebuild(_Fixed):
    """Stands for torch's functions that put a tensor together."""

    __slots__ = ()

    def __call__(
        self, storage: object = None, offset: object = 0, size: object = (), stride: object = (), *rest: object
    ) -> TensorView | Placeholder:
        if not isinstance(storage, Storage):
            return Placeholder()
        first, shape, steps = _counts((offset,)), _counts(size), _counts(stride)
        if first is None or shape is None or steps is None or len(shape) != len(steps):
            refuse("a tensor of the checkpoint has an impossible shape")
        view = TensorView(storage, first[0], shape, steps)
        if not view.inside:
            refuse("a tensor of the checkpoint lies outside of its storage", f"{shape} of {storage.numel} elements")
        return view


class _Parameter(_Fixed):
    """Stands for torch's function that makes a parameter of a tensor: the tensor itself."""

    __slots__ = ()

    def __call__(self, data: object = None, *rest: object) -> object:
        return data if isinstance(data, TensorView) else Placeholder()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _counts(values: object) -> tuple[int, ...] | None:
    if type(values) is not tuple or len(values) > _MOST_AXES or not all(_is_count(value) for value in values):
        return None
    return values


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): Mapping,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter(),
    **{("torch", name): Kind(*kind) for name, kind in KINDS.items()},
}


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle without running anything.

    Args:
        file: Where it stands.
        skipped: Names of everything that was not read are added here; after 200 of them only dots.
    """

    def __init__(self, file: IO[bytes], skipped: set[str]) -> None:
        super().__init__(file, encoding="utf-8")
        self._skipped = skipped

    def find_class(self, module: str, name: str) -> object:
        """What stands for a name: an entry of the table, or a new inert class."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        self._skipped.add(f"{module}.{name}"[:_LONGEST_NAME] if len(self._skipped) < _MOST_NAMES else "...")
        return type("Placeholder", (Placeholder,), {"__slots__": ()})

    def persistent_load(self, pid: object) -> Storage:
        """Describe a storage.

        Raises:
            InputError: If its description is not one that torch writes.
        """
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            refuse("the checkpoint names a storage in an unknown way")
        kind, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(kind, Kind) or type(key) is not str or not _is_count(numel):
            refuse("the checkpoint has a storage of unknown type")
        return Storage(kind, key, numel)


def load(file: IO[bytes], skipped: set[str]) -> object:
    """Read one pickle.

    Raises:
        InputError: If it is damaged or does what no checkpoint does.
    """
    try:
        return InertUnpickler(file, skipped).load()
    except (InputError, MemoryError):
        raise
    except EOFError:
        refuse("the checkpoint is cut off", code="E_TRUNCATED")
    except pickle.UnpicklingError as error:
        cut = "truncated" in str(error)
        refuse("the checkpoint is cut off" if cut else "the checkpoint's pickle cannot be read", code="E_TRUNCATED")
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        refuse("the checkpoint's pickle cannot be read", type(error).__name__)
