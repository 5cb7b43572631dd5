"""`textray serve` under hostile clients, load and the death of its parts, mostly in a process of its own."""

import asyncio
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient

from textray.commands import serve as command
from textray.errors import TextRayError
from textray.inference.worker import Pool

from .conftest import TOKEN, start, stop, talk
from .test_api import OCTETS, png

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
LIVE = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def head(server, *more, length=None):
    lines = ["POST /api/films HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {server.key}", *more]
    lines += ["Transfer-Encoding: chunked"] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


@pytest.mark.parametrize("data", [b"", b"POST /api/films HTTP/1.1\r\nHo", LIVE[:-2]])
def test_f04_a_header_that_does_not_come_frees_its_connection(served, data):
    assert talk(served, data, wait=15) == b""
    assert status(talk(served, LIVE)) == 200


def test_f04_a_body_that_stops_frees_its_connection(served):
    assert talk(served, head(served, length=1000) + b"x", wait=15) == b""
    assert status(talk(served, LIVE)) == 200


def test_f03_a_huge_header_is_refused(served):
    answer = talk(served, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
    assert status(answer) in (431, 400)
    assert status(talk(served, LIVE)) == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chunk(bytes(200_000)) * 2 + b"0\r\n\r\n", 413),
        (chunk(bytes(100_000)) * 40, 413),  # endless
        (b"zz\r\nx\r\n", 400),
        (b"-5\r\nx\r\n", 400),
    ],
)
def test_f02_lies_about_length_are_caught(served, body, expected):
    answer = talk(served, head(served) + body)
    assert status(answer) in (expected, None), answer[:300]  # it may close before we read
    assert b"Traceback" not in answer
    assert status(talk(served, LIVE)) == 200


def test_f02_two_lengths_are_refused(served):
    assert status(talk(served, head(served, "Content-Length: 3", length=5) + b"xxxxx")) == 400
    assert status(talk(served, head(served, length=10**15))) == 413


def test_the_log_of_a_server_has_its_address_its_limits_and_nothing_else(served):
    text = "".join(served.lines)
    assert text.count(served.key) == 1
    assert "film_bytes 300000" in text
    assert "Research only. Not for diagnosis." in text
    assert len(served.lines) == 3, text


def upload_all(app, count):
    """Statuses of uploads at the same time, and of ``/live`` meanwhile."""

    async def run():
        alive = []
        async with (
            app.app.router.lifespan_context(app.app),
            AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1", timeout=60) as client,
        ):
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            jobs = [
                asyncio.create_task(client.post("/api/films", content=png(seed=n % 5), headers=OCTETS))
                for n in range(count)
            ]
            while not all(job.done() for job in jobs):
                alive.append((await client.get("/live")).status_code)
                await asyncio.sleep(0.01)
            return [await job for job in jobs], alive

    return asyncio.run(run())


def test_f05_a_hundred_uploads_at_once_are_taken_or_put_off(app_of, fake_pool):
    answers, alive = upload_all(app_of(fake_pool(size=2)), 100)
    assert {answer.status_code for answer in answers} == {200, 201, 429}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 429)
    assert set(alive) == {200}


@pytest.mark.slow
def test_f05_a_hundred_uploads_at_once_to_a_real_server(served):
    """Over sockets, with a real worker; memory stays bounded."""
    found, memory = [], []

    def send(number):
        data = png(seed=number % 7)
        found.append(status(talk(served, head(served, length=len(data)) + data, wait=120)))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert status(talk(served, LIVE)) == 200
        pages = Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
        memory.append(int(pages) * os.sysconf("SC_PAGE_SIZE"))
        time.sleep(0.1)
    assert set(found) <= {200, 201, 429}
    assert {200, 201} & set(found)
    assert max(memory) < 600 << 20


def test_f06_a_client_that_leaves_gives_up_its_place(app_of, fake_pool):
    """One job runs, a second waits and its client goes: it is never begun, and no file stays."""
    workers = fake_pool()
    workers.go.clear()
    app = app_of(workers)

    async def run():
        headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/api/films",
            "raw_path": b"/api/films",
        }
        scope |= {
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "root_path": "",
        }
        sent = []

        def client(body):
            leaves, messages = asyncio.Event(), [{"type": "http.request", "body": body, "more_body": False}]

            async def receive():
                if messages:
                    return messages.pop()
                await leaves.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            return leaves, asyncio.create_task(app(dict(scope), receive, send))

        async with app.app.router.lifespan_context(app.app):
            stays, first = client(b"a")
            while not workers.begun:
                await asyncio.sleep(0.01)
            goes, second = client(b"b")
            await asyncio.sleep(0.05)
            goes.set()
            await asyncio.wait_for(second, 5)
            assert [message["status"] for message in sent if "status" in message] == [408]
            sent.clear()
            workers.go.set()
            await asyncio.wait_for(first, 5)
            assert [message["status"] for message in sent if "status" in message] == [201]
            stays.set()
        assert workers.begun == ["read"]

    asyncio.run(run())


def test_f13_a_worker_that_dies_fails_one_request_and_is_replaced(client_of, tiny_bundle):
    """The child is killed while it holds an order, as the system does where memory runs out."""
    pool = Pool(1, segmenter=str(tiny_bundle), seconds=30)
    try:
        client = client_of(pool)
        film = client.post("/api/films", content=png(), headers=OCTETS).json()["id"]
        (place,) = pool._all
        os.kill(place.child.process.pid, signal.SIGSTOP)
        dying = threading.Timer(0.3, os.kill, (place.child.process.pid, signal.SIGKILL))
        dying.start()
        answer = client.post(f"/api/films/{film}/segment")
        assert (answer.status_code, answer.json()["code"]) == (500, "E_WORKER_DIED")
        assert client.get("/live").status_code == 200
        assert client.post(f"/api/films/{film}/segment").status_code == 200, "the next one waits for the new worker"
        assert client.get("/ready").status_code == 200
    finally:
        pool.close()


def test_work_that_takes_too_long_is_ended(tiny_bundle):
    pool = Pool(1, segmenter=str(tiny_bundle), seconds=30)
    try:
        pool.ask("about")
        pool.seconds = 0.2
        os.kill(pool._all[0].child.process.pid, signal.SIGSTOP)
        with pytest.raises(TextRayError, match="too long") as caught:
            pool.ask("about")
        assert caught.value.code == "E_TIMEOUT"
        assert not pool.ready
        pool.seconds = 30
        assert pool.ask("about")[0]["name"] == "tiny"
    finally:
        pool.close()
    with pytest.raises(TextRayError, match="no worker"):
        pool.ask("about")


def test_f14_sigterm_lets_a_request_end_and_exits_with_0(tiny_bundle):
    server = start("--model", tiny_bundle, environment={"TEXTRAY_TOKEN": TOKEN})
    assert server.key == ""
    assert TOKEN not in "".join(server.lines), "a token that was given is not printed"
    server.key, data, answers = TOKEN, png((1500, 1500)), []
    running = threading.Thread(target=lambda: answers.append(talk(server, head(server, length=len(data)) + data)))
    running.start()
    time.sleep(0.1)
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert stop(server) == 0
    running.join()
    assert status(answers[0]) == 201
    assert len(server.lines) == 3, server.lines
    with pytest.raises(OSError):  # nothing listens any longer
        talk(server, LIVE)
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "open to the network"),
        (["--host", "::", "--behind-proxy"], "a token that you choose"),
        (["--host", "192.0.2.1", "--token-file", "token"], "--behind-proxy"),
        (["--token-file", "short"], "too weak"),
        (["--token-file", "none"], "cannot be read"),
        (["--tls-cert", "token"], "HTTPS needs two files"),
        (["--limit", "film_byte=1"], "Did you mean 'film_bytes'"),
        (["--limit", "films=many"], "a number above 0"),
        (["--host", "192.0.2.1", "--token-file", "token", "--behind-proxy"], "cannot listen there"),
    ],
)
def test_f11_what_is_not_safe_does_not_start(cli, tmp_path, monkeypatch, tiny_bundle, grounding_bundle, options, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEXTRAY_TOKEN", raising=False)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "short").write_text("secret")
    result = cli("serve", "--model", tiny_bundle, "--ground-model", grounding_bundle, *options)
    assert result.code == 2
    assert words in result.err
    assert TOKEN not in result.err


def test_without_the_extra_the_command_names_it(cli, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    result = cli("serve")
    assert result.code == 2
    assert "pip install 'textray[serve]'" in result.err


def test_the_command_leaves_no_token_for_children(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTRAY_TOKEN", TOKEN)
    assert command._token(None) == (TOKEN, False)
    assert "TEXTRAY_TOKEN" not in os.environ
    new, fresh = command._token(None)
    assert fresh
    assert re.fullmatch(r"[\w-]{32}", new)


def test_the_limits_are_in_the_description_of_the_server(served):
    request = (
        f"GET /api/info HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.key}\r\nConnection: close\r\n\r\n"
    )
    answer = talk(served, request.encode())
    values = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert (values["limits"]["film_bytes"], values["limits"]["header_seconds"]) == (300_000, 1.0)
