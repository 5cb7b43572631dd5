"""B: PNG, JPEG and other files, their names and places."""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage


def clean(tools):
    return tools.raster(tools.eight)


def jpeg(tools, **options):
    return tools.raster(tools.eight, "JPEG", quality=95, **options)


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(tools):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND")


def empty_chunks(tools):
    data = clean(tools)
    return data[:33] + chunk(b"teXt") * 300_000 + data[33:]


def opaque(tools, alpha):
    return tools.raster(np.dstack([tools.eight] * 3 + [np.full_like(tools.eight, alpha)]))


def named(name, content=clean):
    def make(tools):
        Path(name).write_bytes(content(tools))
        return ["--", name]

    return make


def folder(*odd):
    """A folder with a sound film beside odd entries."""

    def make(tools):
        Path("in").mkdir()
        Path("in/good.png").write_bytes(clean(tools))
        for entry in odd:
            entry(Path("in"))
        return ["in"]

    return make


def loop(path):
    (path / "loop").symlink_to(path.resolve(), target_is_directory=True)


def two_folders(path):
    for name, other in (("a", "b"), ("b", "a")):
        (path / name).mkdir(exist_ok=True)
        (path / name / other).symlink_to((path / other).resolve(), target_is_directory=True)


CASES = [
    ("B01a", "a PNG that is cut off", lambda t: clean(t)[:-20], {"exit": 3, "codes": ("E_TRUNCATED",)}),
    ("B01b", "a JPEG that is cut off", lambda t: jpeg(t)[:-300], {"exit": 3, "codes": ("E_TRUNCATED",)}),
    ("B01c", "a JPEG with a hole", lambda t: jpeg(t)[:900] + jpeg(t)[1300:], {"exit": 3, "codes": ("E_TRUNCATED",)}),
    ("B01d", "a JPEG that ends early", lambda t: jpeg(t)[:1000] + b"\xff\xd9", {"exit": 3, "codes": ("E_TRUNCATED",)}),
    (
        "B01e",
        "a progressive JPEG without its last scans",
        lambda t: jpeg(t, progressive=True)[: jpeg(t, progressive=True).rindex(b"\xff\xda")] + b"\xff\xd9",
        {"exit": 3, "codes": ("E_TRUNCATED",)},
    ),
    (
        "B02",
        "EXIF orientation 6",
        lambda t: t.raster(np.rot90(t.eight), orientation=6),
        {"same_as": clean},
    ),
    ("B03a", "16-bit PNG", lambda t: t.raster(t.eight.astype(np.uint16) * 257), {"same_as": clean}),
    (
        "B03b",
        "16-bit PNG with a marker far above its film",
        lambda t: t.raster(np.where(np.indices(t.levels.shape).sum(0) < 12, 65535, t.levels).astype(np.uint16)),
        {},
    ),
    ("B04a", "RGB with equal channels", lambda t: t.raster(np.dstack([t.eight] * 3)), {"same_as": clean}),
    ("B04b", "opaque alpha", lambda t: opaque(t, 255), {"same_as": clean}),
    ("B04c", "transparent pixels", lambda t: opaque(t, 128), {"exit": 3, "codes": ("E_COLOR",)}),
    (
        "B04d",
        "colours",
        lambda t: t.raster(np.dstack([t.eight, t.eight[::-1], t.eight])),
        {"exit": 3, "codes": ("E_COLOR",)},
    ),
    (
        "B04e",
        "a scan with a tint",
        lambda t: t.raster((t.eight[..., None] * np.array([0.9, 0.95, 1])).astype(np.uint8)),
        {"codes": ("W_TINTED",)},
    ),
    (
        "B05a",
        "an animated GIF",
        lambda t: t.raster(t.eight, "GIF", save_all=True, append_images=[PILImage.fromarray(t.eight[::-1])]),
        {"exit": 3, "codes": ("E_FORMAT",), "words": "a GIF picture"},
    ),
    (
        "B05b",
        "an animated PNG",
        lambda t: t.raster(t.eight, save_all=True, append_images=[PILImage.fromarray(t.eight[::-1])]),
        {"exit": 3},
    ),
    (
        "B05c",
        "a TIFF of two pages",
        lambda t: t.raster(t.eight, "TIFF", save_all=True, append_images=[PILImage.fromarray(t.eight[::-1])]),
        {"exit": 3, "codes": ("E_MULTIFRAME",), "words": "several pages"},
    ),
    ("B06a", "60,000 x 60,000 pixels in a few bytes", bomb, {"exit": 3, "codes": ("E_SIZE",)}),
    ("B06b", "a PNG of 300,000 empty chunks", empty_chunks, {"exit": 3, "codes": ("E_SIZE",)}),
    ("B07a", "an empty file", lambda t: b"", {"exit": 3, "codes": ("E_FORMAT",)}),
    ("B07b", "text named .png", named("film.png", lambda t: b"no picture"), {"exit": 3, "codes": ("E_FORMAT",)}),
    (
        "B07c",
        "an HTML error page",
        lambda t: b"<!doctype html><html>404",
        {"exit": 3, "codes": ("E_FORMAT",), "words": "HTML"},
    ),
    (
        "B07d",
        "a lossless JPEG",
        lambda t: jpeg(t).replace(b"\xff\xc0", b"\xff\xc3", 1),
        {"exit": 3, "codes": ("E_FORMAT",), "words": "lossless JPEG"},
    ),
    (
        "B07e",
        "a JPEG-LS picture",
        lambda t: jpeg(t).replace(b"\xff\xc0", b"\xff\xf7", 1),
        {"exit": 3, "codes": ("E_FORMAT",), "words": "JPEG-LS"},
    ),
    (
        "B08",
        "one level in all pixels",
        lambda t: t.raster(np.full((60, 60), 9, np.uint8)),
        {"exit": 3, "codes": ("E_CONSTANT",)},
    ),
    ("B10a", "one pixel", lambda t: t.raster(np.zeros((1, 1), np.uint8)), {"exit": 3, "codes": ("E_SIZE",)}),
    ("B10b", "20 x 400 pixels", lambda t: t.raster(np.resize(t.eight, (20, 400))), {"exit": 3, "codes": ("E_SIZE",)}),
    (
        "B11a",
        "a film of few grey levels",
        lambda t: t.raster(t.eight // 32 * 32),
        {"codes": ("W_LOW_CONTRAST",)},
    ),
    (
        "B11b",
        "a film that is mostly white",
        lambda t: t.raster(np.minimum(t.eight.astype(int) * 6, 255).astype(np.uint8)),
        {"codes": ("W_LOW_CONTRAST",)},
    ),
    ("B13a", "blanks, a leading dash and other letters in the name", named("-a film é 胸.png"), {"same_as": clean}),
    ("B13b", "250 bytes of name", named("x" * 246 + ".png"), {"same_as": clean}),
    (
        "B14a",
        "a pipe in the folder",
        folder(lambda path: os.mkfifo(path / "pipe.png")),
        {"codes": ("W_NOT_IMAGE",)},
    ),
    ("B14b", "a link to the folder itself", folder(loop), {"same_as": clean}),
    ("B14c", "folders that link to each other", folder(two_folders), {"same_as": clean}),
    (
        "B14d",
        "a link that leads nowhere",
        folder(lambda path: (path / "a.png").symlink_to("nowhere")),
        {"codes": ("W_UNREADABLE",)},
    ),
    (
        "B15",
        "a NIfTI volume",
        lambda t: bytes(344) + b"n+1\0" + bytes(400),
        {"exit": 3, "codes": ("E_NOT_A_FILM",), "words": "a NIfTI volume"},
    ),
    (
        "B16",
        "a film that is packed with gzip",
        lambda t: gzip.compress(clean(t)),
        {"exit": 3, "codes": ("E_FORMAT",)},
    ),
]


@pytest.mark.parametrize(("make", "answer"), [case[2:] for case in CASES], ids=[case[0] for case in CASES])
def test_b(make, answer, attempt):
    attempt(make, **answer)
