"""Zones in other words: whatever is written is read back as the same places on the same sides."""

import numpy as np
import pytest

from textray.errors import UsageError
from textray.records import ZONE_NAMES, Zones
from textray.text.paraphrase import FORMS, corpus, facts, paraphrase
from textray.text.zones import parse


def named(zones):
    return {name for name, present in zip(ZONE_NAMES, zones.present, strict=True) if present}


@pytest.mark.parametrize("form", FORMS)
def test_every_place_is_read_back(form):
    rng = np.random.default_rng(0)
    for index in range(1, 64):
        zones, stated = Zones.from_index(index), set()
        for _ in range(12):
            for statement in paraphrase(zones, rng, form=form):
                places = {fact for fact in statement.says if fact in ZONE_NAMES}
                stated |= places
                if places:  # a status or a count alone names no place
                    assert named(parse(statement.text, laterality="viewer").zones) == places, statement.text
                assert statement.says <= facts(zones), statement
        assert stated == named(zones)


def test_a_report_leaves_no_zone_out_and_repeats_itself():
    zones = Zones.from_index(0b100110)
    for form in FORMS:
        first = paraphrase(zones, np.random.default_rng(7), form=form)
        assert {fact for s in first for fact in s.says if fact in ZONE_NAMES} == named(zones)
        assert paraphrase(zones, np.random.default_rng(7), form=form) == first
    seen = {s.text for i in range(200) for s in paraphrase(zones, np.random.default_rng(i))}
    assert len(seen) > 150


def test_mirrored_zones_are_other_facts():
    zones = Zones.from_index(0b000100)
    assert facts(zones) == {"left lower", "unilateral", "one areas"}
    assert facts(zones.mirror()) == {"right lower", "unilateral", "one areas"}
    assert facts(Zones()) == frozenset()


def test_no_zone_is_refused():
    with pytest.raises(UsageError, match="needs a zone"):
        paraphrase(Zones(), np.random.default_rng(0))


def test_the_corpus_has_the_words_of_radiologists():
    texts = corpus()
    words = {word for text in texts for word in text.replace(",", " ").replace(".", " ").split()}
    assert not any("lingul" in word for word in words), "it is the patient's left, zones are the viewer's"
    assert {"bibasal", "rul", "apices", "perihilar", "consolidation", "hemithorax", "six"} <= words
    for lobe in ("left middle lobe", "right middle lobe"):  # on the standard film the patient's is on the viewer's left
        assert any(lobe in text for text in texts)
    assert corpus() == texts
