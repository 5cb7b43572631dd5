"""C: reports."""

from pathlib import Path

import pytest


def given(text, *more):
    """The film with a report."""

    def make(tools):
        Path("film").write_bytes(tools.raster(tools.eight))
        return ["film", *([] if text is None else ["--text", text]), *more]

    return make


def table(content, *more):
    """The film with a table of reports, as bytes."""

    def make(tools):
        Path("film.png").write_bytes(tools.raster(tools.eight))
        Path("texts.csv").write_bytes(content)
        return ["film.png", "--texts", "texts.csv", *more]

    return make


def in_file(content):
    """The film with a report in a file, as bytes."""

    def make(tools):
        Path("film").write_bytes(tools.raster(tools.eight))
        Path("report.txt").write_bytes(content)
        return ["film", "--text-file", "report.txt"]

    return make


def no_text(tools):
    return tools.raster(tools.eight)


RIGHT_BASE = given("opacity in the right lower zone")

CASES = [
    ("C01", "blanks, NaN or nothing", given(" nan "), {"same_as": no_text}),
    (
        "C02",
        "10,000 words",
        given("the patient is stable " * 2500 + "opacity in the right lower zone"),
        {"same_as": RIGHT_BASE},
    ),
    ("C03", "another language", given("Verschattung rechts basal"), {"codes": ("W_NO_ZONE",), "same_as": no_text}),
    (
        "C03b",
        "another language, strictly",
        given("Verschattung", "--strict-text"),
        {"codes": ("E_NO_ZONE",), "exit": 3},
    ),
    (
        "C04a",
        "full-width letters and marks of direction",
        given("opacity in the \u202eright\u202c lower\u200b zone"),
        {"same_as": RIGHT_BASE},
    ),
    ("C05a", "a denial", given("no opacity in the right lower zone"), {"codes": ("W_NEGATIVE",), "same_as": no_text}),
    (
        "C07",
        "a finding that nothing knows, beside a place",
        given("zebroid plaque in the right lower zone"),
        {"same_as": RIGHT_BASE, "words": "words that changed nothing: "},
    ),
    ("C08", "off-topic words", given("Hello World"), {"codes": ("W_NO_ZONE",), "same_as": no_text}),
    (
        "C09",
        "format strings and markup",
        given("%s {0} <b>opacity</b> in the right lower zone"),
        {"same_as": RIGHT_BASE},
    ),
    ("C11a", "capitals and plurals", given("OPACITIES IN THE RIGHT LOWER ZONE"), {"same_as": RIGHT_BASE}),
    ("C11b", "shorthand RLL", given("RLL opacity"), {"same_as": RIGHT_BASE}),
    ("C11c", "the right base", given("opacity at the right base"), {"same_as": RIGHT_BASE}),
    (
        "C12",
        "several findings in one sentence",
        given("consolidation in the right lower zone, left lung clear, and a small opacity of the right apex"),
        {"same_as": given("right upper and lower zone")},
    ),
    (
        "C13",
        "the other side in words that are the viewer's",
        given("opacity in the left lower zone", "--laterality", "viewer"),
        {"same_as": RIGHT_BASE},
    ),
    (
        "C14a",
        "a table of reports with a byte order mark and semicolons",
        table("\ufeffimage;text\r\nfilm.png;opacity in the right lower zone\r\n".encode()),
        {"same_as": RIGHT_BASE},
    ),
    (
        "C14b",
        "a table in UTF-16",
        table("image,text\nfilm.png,opacity in the right lower zone\n".encode("utf-16")),
        {"same_as": RIGHT_BASE},
    ),
    ("C14c", "a table that is no table", table(b"\x00\x01\x02"), {"exit": 2}),
    (
        "C15a",
        "a report in a file",
        in_file("\ufeffFINDINGS:\r\nOpacity in the right lower zone.\r\n".encode()),
        {"same_as": RIGHT_BASE},
    ),
    (
        "C15b",
        "a report in a file of UTF-16",
        in_file("opacity in the right lower zone".encode("utf-16")),
        {"same_as": RIGHT_BASE},
    ),
    (
        "C15c",
        "a report in a file of Windows-1252",
        in_file("there isn\u2019t any opacity in the left base; right base opacity".encode("cp1252")),
        {"same_as": RIGHT_BASE, "codes": ("W_ENCODING",)},
    ),
    ("C15d", "a report in a file that is no text", in_file(b"\x00\x01\x02"), {"exit": 2, "codes": ("E_USAGE",)}),
    (
        "C15e",
        "a report in a folder",
        given(None, "--text-file", "."),
        {"exit": 2, "codes": ("E_USAGE",)},
    ),
    (
        "C15f",
        "two reports",
        given("left base", "--text-file", "report.txt"),
        {"exit": 2, "codes": ("E_USAGE",), "words": "both --text and --text-file were given"},
    ),
]


@pytest.mark.parametrize(("make", "answer"), [case[2:] for case in CASES], ids=[case[0] for case in CASES])
def test_c(make, answer, attempt):
    attempt(make, **answer)
