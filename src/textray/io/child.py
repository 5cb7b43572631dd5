"""Child process: answers orders one after another, under limits of memory and time.

Libraries in C abort, hang or take all memory on damaged input; a child keeps that away from its parent, which starts it
anew. Orders and answers are JSON and bytes, never pickles.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

START_SECONDS = 60.0
"""Longest time until a child is ready: it imports its libraries and loads what it needs."""
_SIZE = struct.Struct("<IQ")

Message = tuple[dict[str, Any], bytes | memoryview]
"""JSON values, and bytes."""


class ChildError(Exception):
    """An order without an answer: ``reason`` is crashed or slow. The child has ended."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def serve(answer: Callable[[dict[str, Any], bytes], Message], memory: int) -> None:
    """Answer orders on the standard input until it ends: the child's whole life.

    Args:
        answer: Gives the answer to an order, JSON values and bytes.
        memory: Bytes that the child may take beyond what it has taken by now.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent decides
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints must not write into an answer
    with suppress(ImportError, OSError, ValueError):  # systems without these limits, or with lower ones
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    _send(stdout, {}, b"")  # ready
    while (order := receive(stdin)) is not None:
        _send(stdout, *answer(*order))


def _send(stream: IO[bytes], head: dict[str, Any], body: bytes | memoryview) -> None:
    words = json.dumps(head).encode()
    stream.write(_SIZE.pack(len(words), len(body)) + words)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a stream; ``None`` at its end."""
    sizes = stream.read(_SIZE.size)
    if len(sizes) < _SIZE.size:
        return None
    head, body = _SIZE.unpack(sizes)
    words, content = stream.read(head), stream.read(body)
    return (json.loads(words), content) if len(words) == head and len(content) == body else None


@dataclass
class Child:
    """A child of this process, one order at a time.

    Attributes:
        code: Python code that it runs, which must call `serve`.
        arguments: Of the code, in ``sys.argv[1:]``.
    """

    code: str
    arguments: tuple[str, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    process: subprocess.Popen[bytes] | None = None
    owner: int = 0

    def ask(self, limit: float, order: dict[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send an order and wait ``limit`` seconds for its answer; a child that does not run is started first.

        Raises:
            ChildError: If there is no answer.
        """
        with self.lock:
            self._start()
            return self._wait(limit, order, data)

    def start(self) -> None:
        """Start the child if it does not run, and wait until it is ready; raises as `ask` does."""
        with self.lock:
            self._start()

    def _start(self) -> None:
        if self.process is not None and self.owner == os.getpid() and self.process.poll() is None:
            return
        paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", self.code, *self.arguments],  # -P: no module of the present folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self.owner = os.getpid()
        self._wait(START_SECONDS)

    def _wait(
        self, limit: float, order: dict[str, Any] | None = None, data: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Answer to an order, or the first sign of life; without one the child is ended."""
        process, slow = self.process, threading.Event()
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            slow.set()
            process.kill()

        timer, answer = threading.Timer(limit, end), None
        timer.start()
        try:
            if order is not None:
                _send(process.stdin, order, data)
            answer = receive(process.stdout)
        except OSError:  # the pipe of a child that died
            pass
        finally:
            timer.cancel()
            # Also after an interrupt: a late answer must not be that of another order.
            if answer is None or slow.is_set():
                self.stop()
        if answer is None:
            raise ChildError("slow" if slow.is_set() else "crashed")
        return answer

    def stop(self) -> None:
        """End the child; not while another thread waits for its answer."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None

    def kill(self) -> None:
        """Kill the child, from any thread; one that waits for its answer gets `ChildError`."""
        process = self.process
        if process is not None and self.owner == os.getpid():
            process.kill()
