"""Films and sentences to learn grounding from: what is drawn, what it states, who is left out; no mask is read."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from textray.data.base import Sample  # noqa: E402
from textray.data.grounding import GroundingData  # noqa: E402
from textray.data.studies import StudyWords, leave_out, mirror, read_patients  # noqa: E402
from textray.errors import DataError, UsageError  # noqa: E402
from textray.records import ZONE_NAMES, Laterality, Report, Zones  # noqa: E402
from textray.text.tokens import WordPiece  # noqa: E402
from textray.text.zones import sentence  # noqa: E402

LEFT = Zones.from_index(0b000100)
CLAUSES = tuple(sentence(LEFT).rstrip(".").split(", "))
NOTHING = Zones()


def words(sentences, zones=NOTHING, laterality=Laterality.VIEWER, **settings):
    study = Sample(image_id="a", image_path=Path("a.png"), split="fit", report=Report(zones=zones))
    return StudyWords([replace(study, sentences=sentences, laterality=laterality)], **settings)


def stated(statements):
    return frozenset().union(*(statement.says for statement in statements))


@pytest.fixture
def phantom(tmp_path):
    def build(**settings):
        data = GroundingData(
            "phantom", size=(32, 32), batch_size=4, workers=0, limit=8, cache=str(tmp_path / "cache"), **settings
        )
        data.setup("fit")
        data.set_vocabulary(WordPiece(data.own_vocabulary(512)))
        return data

    return build


def test_a_batch_is_what_the_network_takes(phantom, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} is a mask")

    monkeypatch.setattr("textray.data.base.read_mask", refuse)
    data = phantom(paraphrase=0.5, augment="strong")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["ids"].shape == batch["attention"].shape == batch["word"].shape == batch["sentence"].shape
    counts = [len(text.sentences) for text in batch["text"]]
    assert (batch["sentence"].amax(1) + 1).tolist() == counts
    assert all(text.facts <= text.report_facts for text in batch["text"])
    assert len(data.sets["fit"]) == 8


def test_what_is_drawn_depends_on_seed_epoch_and_study_only(phantom):
    first, other = (phantom(paraphrase=0.5, augment="strong", sentence_sampling="random_subset") for _ in range(2))
    for key in ((0, 3), (5, 3), (5, 0)):
        one, two = first.sets["fit"][key], other.sets["fit"][key]
        torch.testing.assert_close(one["image"], two["image"])
        assert one["text"] == two["text"]
    drawn = {first.sets["fit"][epoch, 3]["text"].sentences for epoch in range(8)}
    assert len(drawn) > 2
    plain = [first.sets["inner"][epoch, 0] for epoch in (0, 1)]  # selection sees films and reports as they are
    torch.testing.assert_close(plain[0]["image"], plain[1]["image"])
    assert plain[0]["text"].sentences == first.sets["inner"].studies[0].sentences


def test_one_zone_a_text_is_selected_by_one_zone_a_text_the_same_in_each_epoch(phantom):
    one, other = (phantom(paraphrase=0.5, sentence_sampling="one_zone") for _ in range(2))
    for data in (one, other):
        data.val_dataloader().sampler.set_epoch(3)
    drawn, again = ([text for batch in data.val_dataloader() for text in batch["text"]] for data in (one, other))
    assert drawn == again
    assert any(text.report_facts > text.facts for text in drawn)
    for text in drawn:
        (zone,) = text.facts
        assert zone in ZONE_NAMES


def test_each_clause_says_its_part():
    found = words(CLAUSES, LEFT)
    pairs = [(statement.text, statement.says) for statement in found.draw(0, np.random.default_rng(0))]
    assert pairs == list(zip(CLAUSES, ({"unilateral"}, {"one areas"}, {"left lower"}), strict=True))
    assert found.report_facts(0) == {"unilateral", "one areas", "left lower"}
    assert words((sentence(LEFT),), LEFT).draw(0, np.random.default_rng(0))[0].says == found.report_facts(0)
    report = ("Lungs are clear.", "No effusion.")  # such sentences say themselves
    assert words(report).report_facts(0) == {"lungs are clear", "no effusion"}


def test_a_random_subset_keeps_at_least_one_in_any_order():
    found, rng = words(("a b", "c d", "e f"), sampling="random_subset"), np.random.default_rng(0)
    drawn = {tuple(statement.text for statement in found.draw(0, rng)) for _ in range(300)}
    assert {len(sentences) for sentences in drawn} == {1, 2, 3}
    assert len(drawn) == 3 + 6 + 6


def test_some_zones_are_named_as_places_that_are_true():
    zones = Zones.from_present([1, 0, 1, 0, 0, 1])
    found = words(tuple(sentence(zones).split(", ")), zones, paraphrase=0.5, sampling="some_zones")
    rng, drawn, whole = np.random.default_rng(0), set(), 0
    for _ in range(200):
        says = stated(found.draw(0, rng))
        assert says <= found.report_facts(0)
        whole += bool(says & {"bilateral", "three areas"})
        drawn.add(says - {"bilateral", "three areas"})
    assert 20 < whole < 70  # one time in four captions are drawn from as they are
    assert len(drawn - {frozenset()}) == 7, "every choice of three zones"
    report = ("Lungs are clear.", "No effusion.")
    assert {len(words(report, sampling="some_zones").draw(0, rng)) for _ in range(40)} == {1, 2}


def test_one_zone_is_named_at_a_time():
    zones, rng = Zones.from_present([1, 0, 1, 0, 0, 1]), np.random.default_rng(0)
    found = words(tuple(sentence(zones).split(", ")), zones, paraphrase=0.5, sampling="one_zone")
    drawn = [stated(found.draw(0, rng)) for _ in range(200)]
    assert set(drawn) == {frozenset({zone}) for zone in found.report_facts(0) if zone.startswith(("left", "right"))}
    other = {stated(found.draw(0, rng, sampling="all")) for _ in range(20)}
    assert found.report_facts(0) in other, "a sampling of its own for once"


def test_a_mirrored_film_has_the_words_of_the_other_sides():
    found = words(CLAUSES, LEFT, paraphrase=0.5)
    assert found.report_facts(0, mirrored=True) == {"unilateral", "one areas", "right lower"}
    rng = np.random.default_rng(0)
    for _ in range(40):
        for statement in found.draw(0, rng, mirrored=True):
            assert "left" not in statement.text
            assert "left lower" not in statement.says
    swapped = mirror(("Opacity in the left base.", "Right lung clear."))
    assert swapped == ("Opacity in the right base.", "Left lung clear.")


@pytest.mark.parametrize("text", ["RLL opacity", "lingular opacity", "L lung clear", "leftmost rib", "lt base"])
def test_sides_that_cannot_be_swapped_forbid_a_flip(text):
    assert mirror(("Left lung clear.", text)) is None
    assert not words((text,)).can_mirror(0)
    assert not words(CLAUSES, LEFT, laterality=Laterality.UNKNOWN).can_mirror(0)


def test_patients_are_left_out_and_recorded(tmp_path):
    studies = [SimpleNamespace(patient_id=name, image_id=f"{name}-{i}") for name in "abc" for i in range(2)]
    assert [study.patient_id for study in leave_out(studies, ["b"])] == ["a", "a", "c", "c"]
    with pytest.raises(DataError, match="no patient ids"):
        leave_out([SimpleNamespace(patient_id=None, image_id="x")], ["b"])
    listed = tmp_path / "patients.txt"
    listed.write_text("b\n\nzz\nb\n")
    assert read_patients(listed) == ("b", "zz")
    listed.write_text("\n")
    with pytest.raises(UsageError, match="empty"):
        read_patients(listed)


def test_the_list_of_patients_goes_into_the_checkpoint(phantom, tmp_path):
    assert "excluded_patients" not in phantom().describe()
    listed = tmp_path / "patients.txt"
    listed.write_text("nobody\n")
    with pytest.raises(DataError, match="no patient ids"):  # drawn films are of nobody
        phantom(exclude=str(listed))


def test_wishes_that_cannot_be_met_are_refused(tmp_path):
    with pytest.raises(UsageError, match="is a share"):
        GroundingData("phantom", paraphrase=1.5)
    with pytest.raises(UsageError, match="can be paraphrased"):
        GroundingData("monuseg", paraphrase=0.5)
    data = GroundingData("phantom", size=(32, 32), workers=0, limit=2, cache=str(tmp_path / "cache"))
    data.setup("fit")
    with pytest.raises(UsageError, match="without a vocabulary"):
        data.sets["fit"][0, 0]
