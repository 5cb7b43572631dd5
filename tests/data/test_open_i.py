"""Open-i: a copy in the published layout, written here by hand, with the pitfalls of the real one."""

import io
import shutil
import tarfile
from collections import Counter

import pytest
from PIL import Image

from textray import registry
from textray.data.base import open_reader
from textray.data.open_i import PUBLISHED, OpenI
from textray.errors import DataError, LayoutError, UsageError
from textray.records import Laterality

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <uId id="{uid}"/>
   <MedlineCitation Owner="Indiana University" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
            <AbstractText Label="COMPARISON">Large left effusion in XXXX.</AbstractText>
            <AbstractText Label="INDICATION">XXXX year old with cough</AbstractText>
            <AbstractText Label="FINDINGS">{findings}</AbstractText>
            <AbstractText Label="IMPRESSION">{impression}</AbstractText>
         </Abstract>
      </Article>
   </MedlineCitation>
{images}
</eCitation>"""


def report(number, findings="", impression="", images=(), uid=None):
    named = "".join(f'<parentImage id="{image}"><caption>PA and lateral.</caption></parentImage>' for image in images)
    return REPORT.format(uid=uid or f"CXR{number}", findings=findings, impression=impression, images=named).encode()


REPORTS = {
    "1": report(
        1, "Heart size &lt; 1.2 of XXXX.Lungs are clear.", "1. No edema. 2. Old scar.", ["CXR1_1_IM-0001-3001"]
    ),
    "2": report(2, "", "Left base opacity.", ["CXR2_IM-0652-1001", "CXR2_IM-0652-2001"]),
    "10": report(10, "", "", ["CXR10_IM-0002-1001"]),  # nothing said
    "11": report(11, "XXXX.", "Normal.", ["CXR11_IM-0067-1001"]),  # words, but no sentence
    "12": report(12, "The lungs\n      are clear", "No effusion", ["CXR12_IM-0113-1001"]),  # its image is not there
    "13": report(13, "Clear lungs.", ""),  # no image named
}
THERE = ["CXR1_1_IM-0001-3001", "CXR2_IM-0652-1001", "CXR2_IM-0652-2001", "CXR10_IM-0002-1001", "CXR11_IM-0067-1001"]


@pytest.fixture
def copy(tmp_path):
    """Reports unpacked, images in the folder beside, as the two archives give them."""
    root = tmp_path / "Open I"
    (root / "ecgen-radiology").mkdir(parents=True)
    for number, content in REPORTS.items():
        (root / "ecgen-radiology" / f"{number}.xml").write_bytes(content)
    (root / "ecgen-radiology" / "._1.xml").write_bytes(b"\x00\x05")  # what some unpackers leave
    (root / "NLMCXR_png").mkdir()
    for number, name in enumerate(THERE):
        Image.new("L", (32, 24 + number), 90).save(root / "NLMCXR_png" / f"{name}.png")
    return root


def everything(reader):
    return [study for part in ("train", "val", "test") for study in reader.studies(part)]


def test_each_image_has_the_sentences_of_its_report(copy):
    found = {study.image_id: study for study in everything(OpenI(copy))}
    assert set(found) == {"CXR1_1_IM-0001-3001", "CXR2_IM-0652-1001", "CXR2_IM-0652-2001"}
    first = found["CXR1_1_IM-0001-3001"]
    assert first.sentences == ("Heart size < 1.2 of.", "Lungs are clear.", "No edema.", "Old scar.")
    assert first.image_path == copy / "NLMCXR_png" / "CXR1_1_IM-0001-3001.png"
    assert (first.patient_id, first.laterality) == (None, Laterality.PATIENT)
    assert found["CXR2_IM-0652-1001"].sentences == found["CXR2_IM-0652-2001"].sentences == ("Left base opacity.",)


def test_what_is_left_out_is_counted(copy, caplog):
    everything(OpenI(copy))
    lines = [record.getMessage().split(" and ") for record in caplog.records]
    assert sum(int(line[0].split()[0]) for line in lines) == 2  # 10 and 11
    assert sum(int(line[1].split()[0]) for line in lines) == 1  # 12


def test_no_comparison_and_no_indication_is_learnt_from(copy):
    sentences = {report.number: report.sentences for report in OpenI(copy).reports()}
    assert sentences[12] == ("The lungs are clear", "No effusion")
    words = str(sentences)
    assert "effusion in" not in words
    assert "year old" not in words


def test_splits_are_the_same_in_every_copy(copy):
    whole = {r.number: r.part for r in OpenI(copy).reports()}
    (copy / "ecgen-radiology" / "2.xml").unlink()
    assert {r.number: r.part for r in OpenI(copy).reports()} == {n: p for n, p in whole.items() if n != 2}


def test_inner_and_fit_part_train(copy):
    for number in range(20, 80):
        content = report(number, "Clear lungs.", images=[f"CXR{number}_IM-1-1001"])
        (copy / "ecgen-radiology" / f"{number}.xml").write_bytes(content)
    reader = OpenI(copy)
    numbers = {part: {r.number for r in reader.reports(part)} for part in ("train", "val", "test", "inner", "fit")}
    assert numbers["inner"] | numbers["fit"] == numbers["train"]
    assert not numbers["inner"] & numbers["fit"]
    assert numbers["inner"]
    assert numbers["train"] | numbers["val"] | numbers["test"] == {r.number for r in reader.reports()}
    assert len(numbers["train"]) > 3 * len(numbers["val"] | numbers["test"]) / 2
    other = {r.number for r in OpenI(copy, seed=1).reports("inner")}
    assert other != numbers["inner"]
    with pytest.raises(UsageError, match="unknown split"):
        reader.reports("dev")


@pytest.mark.parametrize("around", [False, True])
def test_the_archive_is_read_as_it_was_downloaded(copy, around):
    unpacked = {r.number: (r.sections, r.image_ids) for r in OpenI(copy).reports()}
    with tarfile.open(copy / "NLMCXR_reports.tgz", "w:gz") as archive:
        for number, content in reversed(REPORTS.items()):
            member = tarfile.TarInfo(f"ecgen-radiology/{number}.xml")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shutil.rmtree(copy / "ecgen-radiology")
    reader = OpenI(copy.parent if around else copy)
    assert {r.number: (r.sections, r.image_ids) for r in reader.reports()} == unpacked
    assert len(everything(reader)) == 3
    archived = (copy / "NLMCXR_reports.tgz").read_bytes()
    (copy / "NLMCXR_reports.tgz").write_bytes(archived[: len(archived) // 2])
    with pytest.raises(LayoutError, match=r"NLMCXR_reports\.tgz cannot be read"):
        OpenI(copy).reports()


def test_reports_alone_have_no_studies(copy):
    for path in (copy / "NLMCXR_png").iterdir():
        path.unlink()
    assert len(OpenI(copy).reports()) == 6
    with pytest.raises(LayoutError, match=r"no image of open_i.*reports alone.*CXR1_1_IM-0001-3001\.png"):
        OpenI(copy).studies("train")


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("3.xml", b"<eCitation><uId", "E_XML", "is no XML"),
        ("3.xml", b"\xff\xfe<\x00", "E_XML", "is no XML"),
        ("3.xml", b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>', "E_XML", "document type"),
        ("3.xml", report(3, "x" * 1_100_000), "E_SIZE", "larger than 1000000 bytes"),
        ("3.xml", report(3, uid="CXR4"), "E_ID", "calls itself CXR4"),
        ("three.xml", report(3), "E_ID", "calls itself CXR3"),
        ("3.xml", b"<eCitation/>", "E_ID", "calls itself None"),
        ("02.xml", report(2), "E_DUPLICATE_ID", "second report number 2|is a second"),
        ("3.xml", report(3, images=["CXR1_1_IM-0001-3001"]), "E_DUPLICATE_ID", "as 1.xml does"),
    ],
)
def test_a_bad_report_is_refused_and_named(copy, name, content, code, message):
    (copy / "ecgen-radiology" / name).write_bytes(content)
    with pytest.raises(DataError, match=code):
        OpenI(copy).studies("train")
    found = OpenI(copy).check()
    assert not found.ok
    (problem,) = [problem for problem in found.problems if problem.fatal]
    assert problem.code == code
    assert problem.path in (name, "2.xml")
    assert any(part in problem.message for part in message.split("|"))


def test_an_image_that_lies_in_two_folders_is_refused(copy):
    shutil.copytree(copy / "NLMCXR_png", copy / "more")
    with pytest.raises(DataError, match="E_DUPLICATE_ID"):
        OpenI(copy).studies("train")


def test_check_counts_and_warns(copy):
    found = OpenI(copy).check()
    assert found.ok
    published = {"reports": "6 (published: 3955)", "with findings": "4 (published: 3425)"}
    assert published.items() <= found.counts.items()
    assert {"with words": 5, "sentences": 8, "images on disk": 5}.items() <= found.counts.items()
    assert Counter(p.code for p in found.problems) == {"W_NO_TEXT": 1, "W_NO_IMAGE": 1, "W_COUNT": 4}


def test_check_looks_at_every_image(copy):
    png = copy / "NLMCXR_png" / f"{THERE[0]}.png"
    png.write_bytes(png.read_bytes()[:-20])
    (copy / "NLMCXR_png" / f"{THERE[1]}.png").write_bytes(b"no picture")
    (copy / "NLMCXR_png" / "CXR99_IM-1-1.png").write_bytes((copy / "NLMCXR_png" / f"{THERE[2]}.png").read_bytes())
    codes = {problem.code: problem.path for problem in OpenI(copy).check().problems}
    assert THERE[0] in codes["E_TRUNCATED"]
    assert THERE[1] in codes["E_FORMAT"]
    assert "CXR99" in codes["W_NO_REPORT"]


def test_the_doors_know_it(copy):
    row = registry.dataset("open_i")
    assert (row.masks, row.tasks, row.laterality) == (False, ("grounding",), "patient")
    with pytest.raises(UsageError, match="no lesion masks"):
        open_reader("open_i", copy).samples("train")
    through = [study for part in ("train", "val", "test") for study in open_reader("open_i", copy).studies(part)]
    assert through == everything(OpenI(copy))
    with pytest.raises(UsageError, match="split into sentences"):
        OpenI(copy).studies("train", cut="clauses")
    with pytest.raises(LayoutError, match=r"no reports of open_i.*ecgen-radiology"):
        OpenI(copy / "NLMCXR_png")


@pytest.mark.slow
def test_the_published_reports_have_the_published_counts(real_open_i):
    reader = OpenI(real_open_i)
    found = reader.check()
    assert found.ok
    for name, count in PUBLISHED.items():
        assert found.counts[name] == f"{count} (published: {count})"
    assert (found.counts["with words"], found.counts["sentences"]) == (3927, 22_570)
    assert [len(reader.reports(part)) for part in ("train", "val", "test")] == [3158, 400, 397]
    assert {problem.code for problem in found.problems} == {"W_NO_TEXT"}
