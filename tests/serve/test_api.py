"""The API of `textray serve`: what it answers, to whom, and what it refuses."""

import base64
import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image as PILImage
from pydicom import dcmread

import textray
from textray.errors import InputError, TextRayError
from textray.serve.guard import HEADERS, Access
from textray.serve.limits import Limits
from textray.serve.store import Store, Upload

WORDS = {"text": "opacity in the right lower zone"}
OCTETS = {"Content-Type": "application/octet-stream"}


def png(shape=(100, 80), seed=0):
    buffer = io.BytesIO()
    levels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    PILImage.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def upload(client, data, status=201):
    answer = client.post("/api/films", content=data, headers=OCTETS)
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    values = answer.json()
    assert {"type", "title", "status", "code", "detail", "id"} <= set(values)
    assert (values["status"], values["code"]) == (status, code)
    return values


def test_three_calls_lead_from_film_to_seg(client, study_film, levels, tiny_bundle, tmp_path):
    data = study_film(levels)
    film = upload(client, data)
    assert (film["width"], film["height"], film["sides_from"], film["mirrored"]) == (70, 90, "tag", True)
    result = client.post(f"/api/films/{film['id']}/segment", json=WORDS).json()
    seg = client.get(f"/api/results/{result['id']}/seg.dcm")
    assert seg.headers["content-type"] == "application/dicom"
    (tmp_path / "film.dcm").write_bytes(data)
    expected = textray.load(tiny_bundle, threads=1).segment(tmp_path / "film.dcm", WORDS["text"]).mask
    np.testing.assert_array_equal(dcmread(io.BytesIO(seg.content)).pixel_array.astype(bool), expected)
    mask = client.get(f"/api/results/{result['id']}/mask.png").content
    np.testing.assert_array_equal(np.asarray(PILImage.open(io.BytesIO(mask))) > 0, expected)
    sr = client.get(f"/api/results/{result['id']}/sr.dcm").content
    uid = dcmread(io.BytesIO(seg.content)).SOPInstanceUID
    assert str(uid).encode() in sr, "the SR refers to the SEG that was given out"
    for name in ("overlay.png", "picture.png"):
        with PILImage.open(io.BytesIO(client.get(f"/api/results/{result['id']}/{name}").content)) as picture:
            assert picture.width == 70
    assert json.loads(client.get(f"/api/results/{result['id']}/record.json").content) == result["record"]
    assert result["record"]["input"]["path"] is None


def test_f07_the_same_again_gives_the_same_ids(client):
    film = upload(client, png())
    assert upload(client, png(), 200) == film
    first, again, other = (
        client.post(f"/api/films/{film['id']}/segment", json=words).json()["id"] for words in (WORDS, WORDS, {})
    )
    assert first == again != other


def test_f01_a_name_never_reaches_the_server(client):
    """Names are in headers and addresses only, and no call reads them."""
    headers = OCTETS | {"Content-Disposition": 'attachment; filename="../../x.png"'}
    film = client.post("/api/films?name=..%2f..%2fx&path=/etc/passwd", content=png(seed=3), headers=headers).json()
    result = client.post(f"/api/films/{film['id']}/segment").json()
    assert "x.png" not in json.dumps([film, result])
    for path in (
        "/api/films/..%2f..%2fx/segment",
        "/api/results/..%2f..%2fetc/record.json",
        "/..%2fpage.js",
        "/api/films/%00",
    ):
        assert client.post(path).status_code in (404, 405, 422)


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b"a,b", {"Content-Type": "multipart/form-data; boundary=x"}, "E_CONTENT"),
        (
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 5000,
            {"Content-Type": "multipart/form-data; boundary=x"},
            "E_CONTENT",
        ),
        (gzip.compress(png()), {**OCTETS, "Content-Encoding": "gzip"}, "E_CONTENT"),
        (gzip.compress(bytes(1 << 20)), OCTETS, "E_FORMAT"),
        (b"<!doctype html><title>x</title>", {"Content-Type": "image/png"}, "E_FORMAT"),
        (b"", OCTETS, "E_FORMAT"),
    ],
)
def test_f03_f08_what_is_no_film_is_refused(client, content, headers, code):
    refused(client.post("/api/films", content=content, headers=headers), 415, code)


def test_f08_an_archive_of_films_is_refused_unopened(client):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"{number}.png", b"x")
    assert (
        "zip archive"
        in refused(client.post("/api/films", content=buffer.getvalue(), headers=OCTETS), 415, "E_FORMAT")["detail"]
    )


def test_f08_a_damaged_film_is_refused_by_its_own_code(client):
    refused(client.post("/api/films", content=png()[:-2000], headers=OCTETS), 422, "E_TRUNCATED")


def test_f02_too_much_is_413_by_its_length_and_while_it_comes(client_of, fake_pool):
    workers = fake_pool()
    client = client_of(workers, film_bytes=1000, json_bytes=100)
    refused(client.post("/api/films", content=bytes(1001), headers=OCTETS), 413, "E_TOO_LARGE")
    refused(client.post("/api/films", content=iter([bytes(600), bytes(600)]), headers=OCTETS), 413, "E_TOO_LARGE")
    refused(client.post("/api/report", content=iter([b'{"text": "', b"x" * 200]), headers=OCTETS), 413, "E_TOO_LARGE")
    assert workers.begun == []


def test_f09_no_parameter_takes_an_address_or_a_path(client):
    film = upload(client, png())
    for order in ({"url": "http://127.0.0.1/"}, {"path": "file:///etc/passwd"}, {"model": "/etc"}):
        refused(client.post(f"/api/films/{film['id']}/segment", json=order), 422, "E_REQUEST")
    words = {"text": "file:///etc/passwd http://127.0.0.1/"}
    record = client.post(f"/api/films/{film['id']}/segment", json=words).json()["record"]
    assert record["text"]["given"] == words["text"]
    assert "W_NO_ZONE" in [warning["code"] for warning in record["warnings"]]


def test_f10_markup_is_data(client):
    text = "<img src=x onerror=alert(1)> {{7*7}} %s right lower zone"
    film = upload(client, png())
    answer = client.post(f"/api/films/{film['id']}/segment", json={"text": text})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["record"]["text"]["given"] == text
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


ROUTES = [
    ("GET", "/api/info"),
    ("POST", "/api/films"),
    ("POST", "/api/films/x/segment"),
    ("POST", "/api/films/x/ground"),
    ("GET", "/api/films/x/picture.png"),
    ("DELETE", "/api/films/x"),
    ("GET", "/api/results/x/mask.png"),
    ("POST", "/api/report"),
    ("GET", "/openapi.json"),
]


def test_every_call_needs_the_token(client_of, fake_pool):
    client = client_of(fake_pool())
    described = client.get("/openapi.json").json()["paths"]
    named = {(method.upper(), path) for path, methods in described.items() for method in methods}
    free = {("GET", "/live"), ("GET", "/ready")}
    listed = {
        (
            method,
            path.replace("/films/x", "/films/{film_id}").replace("/results/x/mask.png", "/results/{result_id}/{file}"),
        )
        for method, path in ROUTES
    }
    assert named - free == listed - {("GET", "/openapi.json")}
    token = client.headers.pop("Authorization").removeprefix("Bearer ")
    for method, path in ROUTES:
        for given in (None, "", "Bearer", f"Bearer {token[:-1]}", f"Bearer {token}x", f"Basic {token}", "Bearer \xff"):
            headers = {} if given is None else {"Authorization": given.encode("latin-1")}
            answer = client.request(method, path, headers=headers)
            refused(answer, 401, "E_UNAUTHORISED")
            assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/live", "/ready"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert token not in answer.text
        assert all(answer.headers[name] == value for name, value in HEADERS.items())


@pytest.mark.parametrize(
    "host", ["evil", "evil:8750", "127.0.0.1.evil", "127.0.0.2", "localhost.", "", "[::2]:1", "a@localhost"]
)
def test_f12_another_host_name_is_misdirected(client_of, fake_pool, host):
    refused(client_of(fake_pool()).get("/live", headers={"Host": host}), 421, "E_HOST")


@pytest.mark.parametrize(
    "origin", ["https://evil", "http://localhost:8750", "https://127.0.0.1:8750", "http://127.0.0.1", "null"]
)
def test_f12_a_page_of_another_site_may_do_nothing(client_of, fake_pool, origin):
    client = client_of(fake_pool())
    answer = client.post("/api/films", content=b"x", headers={"Origin": origin})
    refused(answer, 403, "E_ORIGIN")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/api/info", headers={"Origin": "http://127.0.0.1:8750"}).status_code == 200
    assert client.options("/api/films", headers={"Origin": "http://127.0.0.1:8750"}).status_code == 405


def test_a_server_on_all_addresses_knows_itself_by_number_but_by_no_strange_name():
    access = Access(token="t" * 20, names=frozenset({"films.example"}), any_address=True, https=True)
    assert all(
        map(access.is_host, ("films.example", "Films.Example:8750", "10.0.0.7:8750", "[fe80::1]:8750", "10.0.0.7"))
    )
    assert not any(map(access.is_host, ("evil.example", "10.0.0.7.evil.example", "")))
    assert access.is_origin("https://films.example", "films.example")
    assert not access.is_origin("http://films.example", "films.example")


def test_f13_ready_and_live_are_two_things(client_of, fake_pool):
    client = client_of(fake_pool(ready=False))
    assert client.get("/ready").status_code == 503
    assert client.get("/live").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("Traceback /secret/film DOE^JANE"), 500, "E_INTERNAL"),
        (TextRayError("it failed at /secret/film DOE^JANE", code="E_NETWORK"), 500, "E_NETWORK"),
        (InputError("cannot read /secret/film DOE^JANE", code="E_READ"), 404, "E_NOT_FOUND"),
    ],
)
def test_f15_an_error_inside_shows_neither_words_nor_paths(client_of, fake_pool, caplog, capfd, error, status, code):
    answer = client_of(fake_pool(error=error)).post("/api/films", content=b"x", headers=OCTETS)
    values = refused(answer, status, code)
    out = answer.text + caplog.text + "".join(capfd.readouterr())
    assert not any(word in out for word in ("secret", "DOE", "Traceback"))
    assert status != 500 or values["id"] in caplog.text


def test_pictures_have_no_objects_and_say_so(client):
    film = upload(client, png())
    result = client.post(f"/api/films/{film['id']}/segment", json=WORDS).json()["id"]
    for name in ("seg.dcm", "sr.dcm", "sc.dcm"):
        refused(client.get(f"/api/results/{result}/{name}"), 409, "E_NO_STUDY")
    refused(client.get(f"/api/results/{result}/film.exe"), 422, "E_REQUEST")


def test_a_phrase_has_a_map_and_a_peak(client):
    film = upload(client, png())
    found = client.post(f"/api/films/{film['id']}/ground", json={"phrase": "right", "laterality": "viewer"}).json()
    with PILImage.open(io.BytesIO(base64.b64decode(found["map_png"]))) as picture:
        assert picture.mode == "L"
    assert found["low"] <= found["high"] == found["peak"]["value"]
    refused(client.post(f"/api/films/{film['id']}/ground", json={"phrase": " "}), 422, "E_NO_PHRASE")


def test_a_report_is_understood_as_on_the_command_line(client, cli):
    text = "patchy opacity in the right lower zone, left upper zone clear"
    answer = client.post("/api/report", json={"text": text}).json()
    assert answer == cli("report", text, "--json").rows[0]
    refused(client.post("/api/report", json={"text": "word " * 10_001}), 422, "E_LONG")


def test_a_film_that_was_deleted_is_gone_with_its_results(client):
    film = upload(client, png(seed=9))["id"]
    result = client.post(f"/api/films/{film}/segment").json()["id"]
    assert client.delete(f"/api/films/{film}").status_code == 204
    refused(client.delete(f"/api/films/{film}"), 404, "E_NOT_FOUND")
    refused(client.post(f"/api/films/{film}/segment"), 404, "E_NOT_FOUND")
    refused(client.get(f"/api/results/{result}/mask.png"), 404, "E_NOT_FOUND")


def test_f24_a_patient_appears_in_no_answer_and_on_no_stream(client, study_film, levels, patient, caplog, capfd):
    film = client.post("/api/films", content=study_film(levels), headers=OCTETS)
    name = film.json()["id"]
    result = client.post(f"/api/films/{name}/segment", json=WORDS)
    ground = client.post(f"/api/films/{name}/ground", json={"phrase": "left"})
    broken = client.post("/api/films", content=study_film(levels)[:-500], headers=OCTETS)
    assert broken.status_code == 422
    texts = [film.text, result.text, ground.text, broken.text, caplog.text, *capfd.readouterr()]
    for value in (*patient, "ACC-77", "1.2.3.4.5"):
        assert not [text for text in texts if value in text]


def test_info_tells_weights_and_limits(client, tiny_bundle):
    values = client.get("/api/info").json()
    assert values["weights"]["name"] == "tiny"
    assert values["limits"] == Limits().to_dict()
    assert values["research_only"] is True


@pytest.fixture
def store():
    now = [0.0]
    kept = Store(Limits(films=2, results=2, keep_seconds=60, stored_bytes=100), clock=lambda: now[0])
    kept.now = now
    yield kept
    kept.close()
    assert not kept.folder.exists()


def film_in(store, name, size=10):
    path = store.folder / name
    path.write_bytes(bytes(size))
    return store.keep(Upload(path=path, size=size, sha256=name), {})


def test_the_store_forgets_what_nobody_uses_and_what_is_too_much(store):
    a, b = film_in(store, "a"), film_in(store, "b")
    store.now[0] = 40
    store.film(a.id)
    store.now[0] = 70
    with pytest.raises(InputError, match="no film"):
        store.film(b.id)
    assert not b.path.exists()
    assert store.known("a") is a
    c = film_in(store, "c")
    d = film_in(store, "d")  # a third one: the oldest goes
    assert not a.path.exists()
    film_in(store, "e", size=95)  # too many bytes: all others go
    assert not c.path.exists()
    assert not d.path.exists()
    results = [store.keep_result(store.known("e"), {"n": n}, {}, b"") for n in range(3)]
    with pytest.raises(InputError, match="no result"):
        store.result(results[0].id)
    assert store.result(results[2].id) is results[2]


def test_the_folder_of_films_is_private(store):
    assert store.folder.stat().st_mode & 0o077 == 0
