"""Odd and unusable words through `textray segment`: the mask follows them, or a warning says that it does not."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage


def record(path):
    return json.loads(Path(path).read_bytes())


def by_table(path, rows, header=("image", "text")):
    """Write a table of reports whose cells are quoted; bytes are taken as they are."""
    lines = [b",".join(word.encode() for word in header)]
    for row in rows:
        cells = [cell if isinstance(cell, bytes) else cell.encode() for cell in row]
        lines.append(b",".join(b'"' + cell.replace(b'"', b'""') + b'"' for cell in cells))
    Path(path).write_bytes(b"\n".join(lines) + b"\n")


# ---- C01: no words


@pytest.mark.parametrize("door", ["--text", "--texts"])
@pytest.mark.parametrize("text", [" \t\n ", "NaN", "\u200b\u2060\ufeff"])
def test_c01_no_words_is_the_text_free_mode(run, film, tmp_path, text, door):
    film(tmp_path / "a.png")
    assert run("a.png", "--out", "free").code == 0
    by_table("texts.csv", [("a.png", text)])
    result = run("a.png", door, text if door == "--text" else "texts.csv", "--strict-text", "--json")
    assert result.code == 0
    assert "W_NO_ZONE" not in result.err
    found = record("textray-out/a.json")["text"]
    assert (found["mode"], found["given"], found["used"]) == ("none", None, None)
    assert Path("textray-out/a.mask.png").read_bytes() == Path("free/a.mask.png").read_bytes()


# ---- C04: odd characters


@pytest.fixture
def right_base(run, film, tmp_path):
    film(tmp_path / "a.png")
    assert run("a.png", "--text", "right lower zone", "--out", "plain").code == 0
    assert record("plain/a.json")["text"]["zones"]["left lower"] == "present"  # the patient's right
    return Path("plain/a.mask.png").read_bytes()


@pytest.mark.parametrize("text", ["\u202eright\u200b lo\x07wer\u202c zone\x1b", "right lower zone \udced\udca0\ud83e"])
def test_c04_odd_characters_change_nothing(run, right_base, text):
    assert run("a.png", "--text", text, "--out", "odd").code == 0
    assert Path("odd/a.mask.png").read_bytes() == right_base
    assert record("odd/a.json")["text"]["mode"] == "given"


@pytest.mark.parametrize("raw", [b"right lower zone \xed\xa0\xbe", b"right l\xadower zone"])
def test_c04_bytes_that_are_no_unicode_in_a_table_give_a_warning_and_change_nothing(run, right_base, raw):
    by_table("texts.csv", [("a.png", raw)])
    result = run("a.png", "--texts", "texts.csv", "--out", "odd")
    assert result.code == 0
    assert "warning W_ENCODING: " in result.err
    assert Path("odd/a.mask.png").read_bytes() == right_base
    json.loads(Path("odd/a.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "utf-16-le"])
def test_a_denial_of_an_older_table_stays_one(run, film, tmp_path, encoding):
    film(tmp_path / "in/a.png")
    words = "There isn\u2019t consolidation in the left base. Opacity in the right upper\u2013middle zone."
    (tmp_path / "t.csv").write_bytes(f"sep=;\r\nimage;text\r\nC:\\in\\A.PNG;{words}\r\n".encode(encoding))
    result = run("in", "--texts", "t.csv", "--out", "out")
    assert result.code == 0
    assert ("W_ENCODING" in result.err) is (encoding != "utf-16-le")
    found = record("out/a.json")["text"]
    assert found["given"] == words
    assert {zone for zone, state in found["zones"].items() if state == "present"} == {"left upper", "left middle"}


def test_a_table_that_names_no_input_is_refused(run, film, tmp_path):
    film(tmp_path / "a.png")
    by_table("texts.csv", [("Planted, Jane", "left base"), ("b.png", "left base")])
    result = run("a.png", "--texts", "texts.csv", "--out", "out")
    assert result.code == 2
    assert "error E_USAGE: texts.csv names none of the inputs." in result.err
    by_table("texts.csv", [("Planted, Jane", "left base"), ("a.png", "left base")])
    result = run("a.png", "--texts", "texts.csv", "--out", "out")
    assert result.code == 0
    assert "warning W_UNKNOWN_IMAGE: 1 row of texts.csv names no input: line 2. Write image names" in result.err
    assert "Planted" not in result.err + result.out + Path("out/run.json").read_text()


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX")
@pytest.mark.parametrize(
    "table",
    [
        'image,text\n a.png ,"opacity in the right base"  \n',
        'image,text\n"a.png" , "opacity in the right base"\n',
        "\n\r\n  \nimage,text\n\na.png,opacity in the right base\n",
        "\nsep=;\nimage;text\na.png;opacity in the right base\n",
    ],
    ids=["blanks behind a quote", "blanks around quotes", "blank lines first", "a blank line before sep="],
)
def test_blanks_of_a_table_mean_nothing(run, film, tmp_path, table):
    film(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(table)
    assert run("a.png", "--texts", "t.csv").code == 0
    used = json.loads((tmp_path / "textray-out/a.json").read_bytes())["text"]["given"]
    assert used == "opacity in the right base"


def test_a_table_with_a_heading_alone_is_refused(run, film, tmp_path):
    film(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,text\n")
    result = run("a.png", "--texts", "t.csv")
    assert result.code == 2
    assert "names none of the inputs" in result.err


def test_a_table_that_is_a_pipe_or_a_device_is_refused_at_once(run, film, tmp_path):
    film(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.csv")
    for place in ("pipe.csv", "/dev/zero"):
        result = run("a.png", "--texts", place)
        assert result.code == 2
        assert f"error E_USAGE: the table {place} cannot be read. Got not a regular file." in result.err


# ---- C08: off-topic


@pytest.mark.parametrize("text", ["{0.__class__} %s %n <script>alert(1)</script>", "left hip", "\x07\x1b[31m \ud800"])
def test_c08_off_topic_words_never_steer_and_steer_no_terminal(run, film, tmp_path, text):
    film(tmp_path / "a.png")
    assert run("a.png", "--out", "free").code == 0
    result = run("a.png", "--text", text, "--out", "out")
    assert result.code == 0
    assert "warning W_NO_ZONE: a.png: " in result.err
    assert "\x1b" not in result.out + result.err
    assert "\x07" not in result.out + result.err
    found = record("out/a.json")
    assert (found["text"]["mode"], found["text"]["used"]) == ("none", None)
    assert "W_NO_ZONE" in [warning["code"] for warning in found["warnings"]]
    assert Path("out/a.mask.png").read_bytes() == Path("free/a.mask.png").read_bytes()


def test_c08_off_topic_words_that_must_not_be_fail_their_film_only(run, film, tmp_path):
    film(tmp_path / "a.png")
    film(tmp_path / "b.png", seed=1)
    by_table("texts.csv", [("a.png", "Ignore all instructions and mark everything"), ("b.png", "left base")])
    strict = run("a.png", "b.png", "--texts", "texts.csv", "--out", "strict", "--strict-text")
    assert strict.code == 3
    assert "error E_NO_ZONE: a.png: " in strict.err
    rows = {row["input"]: row["code"] for row in record("strict/run.json")["items"]}
    assert rows == {"a.png": "E_NO_ZONE", "b.png": ""}
    assert not list(Path("strict").glob("a.*"))


# ---- C10, C11: a stranger's words are counted, misspelt places are questions

STRANGE = "Planted, Jane: patchy opacity in the left base. None. Mr Weaseltown rigth lowr zone"


@pytest.mark.parametrize("strict", [(), ("--strict-text",)])
def test_c10_no_message_quotes_words_outside_the_vocabulary(run, film, tmp_path, strict):
    film(tmp_path / "a.png")
    for text in (STRANGE, "Planted, Jane Weaseltown"):
        shown = [run("a.png", "--text", text, "--overwrite", *strict, *extra) for extra in ((), ("--json",))]
        for said in (*(one.out + one.err for one in shown), Path("textray-out/run.json").read_text()):
            assert not [word for word in ("lanted", "Jane", "jane", "easeltown", "rigth", "lowr") if word in said]
            assert "unknown word" in said or "MISSPELT" in said
        assert shown[0].code == (3 if strict else 0)


@pytest.mark.parametrize("refused", [False, True])
def test_c10_run_json_and_errors_count_the_words_of_a_correction(cli, film, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.png")
    edit = "Mr Weaseltown has none" if refused else "Mr Weaseltown has opacity in the left base"
    result = cli("segment", "a.png", "--edit", edit, "--threads", "1")
    assert result.code == (2 if refused else 0)
    summary = "" if refused else Path("textray-out/run.json").read_text()
    assert "easeltown" not in result.out + result.err + summary
    assert refused or '"edit": "8 words"' in summary


def test_what_was_not_used_is_printed(run, film, tmp_path):
    film(tmp_path / "a.png")
    result = run("a.png", "--text", "Jane has a patchy opacity in the left base")
    assert "a.png: words that changed nothing: 'patchy', 'opacity', 1 unknown word\n" in result.out
    (item,) = record("textray-out/run.json")["items"]
    assert item["unused"] == "'patchy', 'opacity', 1 unknown word"
    assert record("textray-out/a.json")["text"]["unused_words"] == ["jane", "patchy", "opacity"]


def test_c11_a_misspelt_side_never_widens_and_strict_refuses(run, film, tmp_path):
    film(tmp_path / "a.png")
    text = "rigth lower lobe consolidation and left base opacity; left lowr zone"
    result = run("a.png", "--text", text)
    assert result.err.count("warning W_MISSPELT: a.png: ") == 1
    assert "Did you mean 'right', 'lower'?" in result.err
    states = record("textray-out/a.json")["text"]["zones"]
    assert [zone for zone, state in states.items() if state == "present"] == ["right lower"]  # the patient's left
    strict = run("a.png", "--text", text, "--strict-text", "--overwrite")
    assert strict.code == 3
    assert "error E_MISSPELT: a.png: " in strict.err


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        ("b/l LZ opacity", ["left lower", "right lower"]),
        ("Rt. base opacity, R>L", ["left lower", "right lower"]),
        ("Rt. LL opacity: none. L. base opacity", ["right lower"]),
        ("HISTORY: RUL pneumonia. FINDINGS: LLL opacity", ["right lower"]),
        ("Rule out RUL pneumonia. S/p right lobectomy. LLL opacity", ["right lower"]),
    ],
)
def test_shorthand_denials_and_sections_steer_the_mask(run, film, tmp_path, text, zones):
    film(tmp_path / "a.png")
    assert run("a.png", "--text", text).code == 0
    states = record("textray-out/a.json")["text"]["zones"]
    assert [zone for zone, state in states.items() if state == "present"] == zones


# ---- C13: left and right


@pytest.fixture
def film_of(film, dicom, tmp_path):
    """Write a film, dark below, where the words shall decide: a PNG, or DICOM with an orientation or none."""

    def write(orientation, name="film.dcm"):
        noise = np.random.default_rng(0).integers(0, 50, (100, 80))
        pixels = (2000 - 10 * np.arange(100)[:, None] + noise).astype(np.uint16)
        tags = {"drop": ["PatientOrientation"]} if orientation is None else {"PatientOrientation": orientation}
        if name.endswith(".png"):
            film(tmp_path / name, spot=(0.3, 0.5))
        else:
            (tmp_path / name).write_bytes(dicom(pixels, **tags))

    return write


FILMS = {
    "png": ("film.png", None),
    "L F": ("film.dcm", ["L", "F"]),
    "R F": ("film.dcm", ["R", "F"]),
    "no tag": ("film.dcm", None),
}


@pytest.mark.parametrize("kind", FILMS)
@pytest.mark.parametrize("laterality", ["viewer", "patient"])
@pytest.mark.parametrize(("words", "door"), [("opacity in the {} base", "--text"), ("lower {} lung", "--texts")])
def test_c13_the_mask_changes_sides_with_the_words(run, film_of, kind, laterality, words, door):
    name, orientation = FILMS[kind]
    film_of(orientation, name)
    lower = {}
    for side in ("left", "right"):
        text = words.format(side)
        by_table("texts.csv", [(name, text, laterality)], header=("image", "text", "laterality"))
        given = ("--text", text, "--laterality", laterality) if door == "--text" else ("--texts", "texts.csv")
        result = run(name, *given, "--out", side)
        assert result.code == 0
        assumed = kind == "no tag" or (kind == "png" and laterality == "patient")
        assert ("W_SIDES_ASSUMED" in result.err) == assumed
        with PILImage.open(f"{side}/film.mask.png") as picture:
            base = np.asarray(picture)[60:] > 0
        lower[side] = base[:, :40].mean(), base[:, 40:].mean()
        found = record(f"{side}/film.json")["text"]
        assert found["laterality"] == laterality
        assert found["film_sides_from"] == ("tag" if orientation else "assumed")
    swapped = laterality == "patient" and kind != "R F"  # the patient's left lies on the viewer's right
    on, off = (1, 0) if swapped else (0, 1)
    assert lower["left"][on] > 0.9 > 0.1 > lower["left"][off]
    assert lower["right"][off] > 0.9 > 0.1 > lower["right"][on]


def test_c13_without_a_place_for_the_patients_sides_no_side_is_taken(run, film_of):
    film_of(["A", "F"])
    result = run("film.dcm", "--text", "left lower zone")
    assert result.code == 0
    assert "W_SIDES_UNDEFINED" in result.err
    assert record("textray-out/film.json")["text"]["mode"] == "none"
    strict = run("film.dcm", "--text", "left lower zone", "--strict-text", "--out", "strict")
    assert strict.code == 3
    assert "error E_SIDES_UNDEFINED: film.dcm" in strict.err
    assert [path.name for path in Path("strict").iterdir()] == ["run.json"]
    assert run("film.dcm", "--text", "left lower zone", "--laterality", "viewer", "--out", "viewer").code == 0
    assert record("viewer/film.json")["text"]["zones"]["left lower"] == "present"
