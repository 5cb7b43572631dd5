"""What tests of the server share: workers on tiny weights, a client in this process, and servers in their own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx2")

TOKEN = "a-token-that-nobody-guesses"
STUDY = {
    "StudyInstanceUID": "1.2.3.4",
    "SeriesInstanceUID": "1.2.3.4.5",
    "StudyID": "S1",
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "AccessionNumber": "ACC-77",
    "PatientSex": "F",
    "ReferringPhysicianName": "",
}


@pytest.fixture(scope="session")
def pool(tiny_bundle, grounding_bundle):
    """One real worker."""
    from textray.inference.worker import Pool

    workers = Pool(1, segmenter=str(tiny_bundle), localizer=str(grounding_bundle))
    yield workers
    workers.close()


class FakePool:
    """Workers that answer at once, or once ``go`` is set; they count what they began."""

    def __init__(self, size=1, ready=True, error=None):
        self.size, self.ready, self.error = size, ready, error
        self.go, self.begun = threading.Event(), []
        self.go.set()

    def ask(self, do, **order):
        self.begun.append(do)
        self.go.wait(10)
        if self.error is not None:
            raise self.error
        facts = {"width": 8, "height": 8, "sides_from": "assumed", "mirrored": True, "format": "png", "notices": []}
        return facts, b""


@pytest.fixture
def fake_pool():
    """Build workers without a network: ``fake_pool(size=1, ready=True, error=None)``."""
    return FakePool


@pytest.fixture
def app_of():
    """Build the application: ``app_of(pool, **limits)``."""
    from textray.serve.app import create
    from textray.serve.guard import Access
    from textray.serve.limits import Limits

    return lambda workers, **limits: create(workers, Access(token=TOKEN), Limits(**limits))


@pytest.fixture
def client_of(app_of):
    """Build a client with the token: ``client_of(pool, **limits)``."""
    from starlette.testclient import TestClient

    open_clients = []

    def build(workers, *, token=TOKEN, **limits):
        client = TestClient(app_of(workers, **limits), base_url="http://127.0.0.1:8750")
        client.headers["Authorization"] = f"Bearer {token}"
        client.__enter__()
        open_clients.append(client)
        return client

    yield build
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(client_of, pool):
    """A client of an application with a real worker."""
    return client_of(pool)


@pytest.fixture(scope="session")
def study_film(dicom):
    """Bytes of a DICOM film that belongs to a study: ``study_film(levels, **tags)``."""
    return lambda levels, **tags: dicom(levels, **STUDY | tags)


def start(*options, environment=None):
    """Run `textray serve` in a process of its own, until it is ready."""
    code = "import sys; from textray.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "serve", "--port", "0", "--workers", "1", *map(str, options)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    lines = [process.stderr.readline()]
    address, _, key = lines[0].split()[1].partition("#key=")
    port = address.rstrip("/").rpartition(":")[2]
    server = SimpleNamespace(process=process, url=address, key=key, port=int(port), lines=lines)
    rest = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    rest.start()
    server.finish = rest.join
    for _ in range(600):
        if b" 200 " in talk(server, b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")[:16]:
            return server
        time.sleep(0.1)
    raise AssertionError("".join(lines))


def talk(server, data, *, wait=30.0):
    """Send bytes and return all that come until the other side closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as line:
        answer = b""
        try:
            line.sendall(data)
            while part := line.recv(1 << 16):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def stop(server):
    """End a server of `start`; its exit code."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(30)
    server.finish()
    server.process.stderr.close()
    return code


@pytest.fixture(scope="session")
def served(tiny_bundle, grounding_bundle):
    """A server in a process of its own, shared: do not end it; patient with slow clients for a second."""
    limits = ("header_seconds=1", "silence_seconds=1", "film_bytes=300000")
    options = [word for limit in limits for word in ("--limit", limit)]
    server = start("--model", tiny_bundle, "--ground-model", grounding_bundle, *options)
    yield server
    assert stop(server) == 0
