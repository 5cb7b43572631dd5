"""The command doctor: what this machine has and lacks, and whether it computes the masks that it should."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textray import __version__
from textray.commands.console import note, say, say_json
from textray.commands.info import extras
from textray.commands.segment import AsJson
from textray.errors import TextRayError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ANSWER = "demo_answer.json"
"""The mask that the weights inside draw in the demo film, and of which weights it is."""
SAME = 0.999
"""Dice with that mask from which on a machine computes what it should; processors differ in the last digits."""
_LITTLE_DISK, _LITTLE_MEMORY = 1000, 1500  # MB below which a folder of films, or one large film, may not go through
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def doctor(
    out: Annotated[Path, typer.Option(help="Where results would go, for the free space there.")] = Path("textray-out"),
    as_json: AsJson = False,
) -> None:
    """Look at this machine: extras, threads, memory, disk, and whether the demo film gets the mask that it should.

    Exit code 1 where it does not.
    """
    found = examine(out)
    if as_json:
        say_json(found)
    else:
        for line in _lines(found):
            say(line)
    for problem in found["problems"]:
        kind = "error" if problem["code"].startswith("E_") else "warning"
        note(f"{kind} {problem['code']}: {problem['text']} {problem['do']}")
    raise typer.Exit(0 if found["ok"] else 1)


def examine(out: Path) -> dict[str, Any]:
    """What a machine has, and its problems: codes, words and remedies. Nothing but the demo film is read."""
    import onnxruntime

    from textray.data.cache import cache_folder
    from textray.inference.runtime import default_threads

    memory = _memory()
    found: dict[str, Any] = {
        "textray": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "extras": extras(),
        "threads": {
            "processors": os.cpu_count(),
            "used": default_threads(),
            **{name: os.environ[name] for name in _THREADS if name in os.environ},
        },
        "memory_mb": memory,
        "provider": {"used": "CPUExecutionProvider", "available": onnxruntime.get_available_providers()},
        "disk": {"results": _disk(out), "cache": _disk(cache_folder())},
        "demo": _demo(),
    }
    problems = []
    for name, place in found["disk"].items():
        if not place["writable"]:
            problems.append(_problem("W_NOT_WRITABLE", f"The folder of {name} cannot be written.", _MEND[name]))
        elif place["free_mb"] < _LITTLE_DISK:
            problems.append(_problem("W_DISK", f"The disk of {name} has {place['free_mb']} MB free.", _MEND[name]))
    if memory["available"] is not None and memory["available"] < _LITTLE_MEMORY:
        problems.append(_problem("W_MEMORY", f"{memory['available']} MB of memory are free.", "Close other programs."))
    demo = found["demo"]
    if demo["ok"] is None:
        problems.append(_problem("W_NOT_TRIED", f"The masks were not tried: {demo['reason']}.", demo["do"]))
    elif not demo["ok"]:
        what = demo.get("reason") or f"the demo film's mask has a Dice of {demo['dice']:.4f} with the stored one"
        problems.append(_problem("E_MACHINE", f"This machine computes other masks: {what}.", _REINSTALL))
    return found | {"problems": problems, "ok": demo["ok"] is not False}


_MEND = {
    "results": "Free some space, or name another folder with --out.",
    "cache": "Free some space, or set TEXTRAY_CACHE to another folder.",
}
_REINSTALL = "Reinstall textray and onnxruntime, and do not use results of this machine."


def _problem(code: str, text: str, do: str) -> dict[str, str]:
    return {"code": code, "text": text, "do": do}


def _memory() -> dict[str, int | None]:
    """Memory in MB: all, and what is free, as far as the system says; a limit of a container counts."""
    known: dict[str, int] = {}
    try:
        rows = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        known = {name: int(size) // 1024 for name, size in rows}
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            known["MemTotal"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) >> 20
        free = limit - (int((group / "memory.current").read_text()) >> 20)
        known["MemTotal"] = min(limit, known.get("MemTotal", limit))
        known["MemAvailable"] = min(free, known.get("MemAvailable", free))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return {"total": known.get("MemTotal"), "available": known.get("MemAvailable")}


def _disk(folder: Path) -> dict[str, Any]:
    """Free space where a folder is or would be, and whether it can be written there; no file stays."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            writable = True
    except OSError:
        writable = False
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    return {
        "folder": str(folder),
        "free_mb": shutil.disk_usage(there).free >> 20,
        "holds_mb": size >> 20,
        "writable": writable,
    }


def _demo() -> dict[str, Any]:
    """The demo film by the weights inside, against the mask that is stored."""
    import numpy as np

    from textray.inference.bundle import DEFAULT_WEIGHTS, Bundle
    from textray.inference.inputs import demo_film
    from textray.inference.segmenter import Predictor

    film = demo_film()
    if film is None:
        return {"ok": None, "reason": "the demo film is not installed", "do": "pip install 'textray[demo]'"}
    started = time.perf_counter()
    try:
        bundle = Bundle.load(DEFAULT_WEIGHTS)
        weights, stored, truth = bundle.sha256, *stored_answer()
        if weights != stored:
            return {"ok": None, "reason": "the stored mask is of other weights", "do": "Reinstall textray."}
        mask = Predictor(bundle).segment(film).mask
    except TextRayError as error:
        return {"ok": False, "reason": f"{error.code}: {error}"}
    if mask.shape != truth.shape:
        return {"ok": False, "reason": f"the demo film is read as {mask.shape}, not as {truth.shape}"}
    dice = float(2 * np.sum(mask & truth) / max(int(mask.sum() + truth.sum()), 1))
    seconds = round(time.perf_counter() - started, 2)
    return {"ok": dice >= SAME, "dice": round(dice, 6), "weights": weights, "seconds": seconds}


def stored_answer() -> tuple[str, NDArray[np.bool_]]:
    """Hash of the weights that the stored mask is of, and that mask ``(H, W)``."""
    import numpy as np

    answer = json.loads(files("textray").joinpath("commands", ANSWER).read_text("ascii"))
    height, width = answer["shape"]
    bits = np.frombuffer(zlib.decompress(base64.b64decode(answer["mask"])), np.uint8)
    return answer["weights"], np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)


def answer_of(weights: str, mask: NDArray[np.bool_]) -> str:
    """The file of a stored answer."""
    import numpy as np

    packed = base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode()
    return json.dumps({"weights": weights, "shape": list(mask.shape), "mask": packed}) + "\n"


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"textray {found['textray']}, Python {found['python']}, {found['system']} ({sys.executable})"]
    for extra, state in found["extras"].items():
        lacks = ", ".join(state["missing"])
        lines.append(f"extra {extra}: {'installed' if state['installed'] else f'lacks {lacks}'}")
    threads, memory, provider, demo = (found[name] for name in ("threads", "memory_mb", "provider", "demo"))
    given = ", ".join(f"{name}={threads[name]}" for name in _THREADS if name in threads)
    used = f"threads: {threads['used']} of {threads['processors']} processors"
    lines.append(used + (f" (set for other programs: {given})" if given else ""))
    sizes = ("unknown" if memory[name] is None else f"{memory[name]:,} MB" for name in ("total", "available"))
    lines.append("memory: {}, free {}".format(*sizes))
    lines.append(f"provider: {provider['used']} (available: {', '.join(provider['available'])})")
    for name, place in found["disk"].items():
        state = "" if place["writable"] else ", not writable"
        held = f", holds {place['holds_mb']:,} MB" if name == "cache" else ""
        lines.append(f"{name}: {place['folder']}, {place['free_mb']:,} MB free{held}{state}")
    if demo["ok"] is None:
        lines.append(f"demo film: not tried, {demo['reason']}")
    elif "dice" in demo:
        verdict = "as it should be" if demo["ok"] else "WRONG"
        lines.append(f"demo film: Dice {demo['dice']:.4f} with the stored mask, {verdict} ({demo['seconds']:.1f} s)")
    else:
        lines.append(f"demo film: WRONG, {demo['reason']}")
    return lines
