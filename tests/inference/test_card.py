"""The model card says what is true of the very network."""

import pytest

from textray.export.card import segmenter_card


def facts(*, text_encoder="tiny", dropout=0.4):
    return {
        "network": "mmi_unet" if text_encoder else "unet",
        "config": {"width": 64},
        "text_encoder": text_encoder,
        "epoch": 3,
        "max_epochs": 16,
        "version": "0.1.0",
        "data": {
            "name": "qata_cov19",
            "preprocess": {"size": (160, 192), "normalise": "percentile"},
            "augment": "light",
            "report_dropout": dropout,
            "seed": 0,
            "images": {"fit": 5495, "inner": 221},
        },
    }


def test_a_network_that_reads_text_tells_how_it_learnt_to():
    text = segmenter_card("weights", facts(), parameters=1234567, terms="Research use only.")
    for part in ("1,234,567 parameters", "5,495 images", "221", "160×192 px", "withheld from 40%"):
        assert part in text
    assert "with a report and with none" in text
    assert "written from the lesion masks" in text  # what the captions of the data are
    assert "Not measured" in text
    assert text.rstrip().endswith("Research use only.")


def test_a_network_that_always_had_a_report_says_so():
    text = segmenter_card("weights", facts(dropout=0.0), parameters=1, terms="")
    assert "without one was not trained" in text
    assert "and with none" not in text


def test_reports_of_its_own_in_the_place_of_those_withheld_are_no_learning_without_one():
    text = segmenter_card("weights", facts() | {"self_guided": 1.0}, parameters=1, terms="")
    assert "withheld from 40%" in text
    assert "its own took their place" in text
    assert "without one was not trained" in text
    assert "with a report and with none" in segmenter_card(
        "weights", facts() | {"self_guided": 0.5}, parameters=1, terms=""
    )


def test_films_without_a_caption_teach_to_go_without():
    known = facts(dropout=0.0)
    known["data"]["without_text"] = {"fit": 12, "inner": 0}
    text = segmenter_card("weights", known, parameters=1, terms="")
    assert "and 12 films came without one, so the network works with a report and with none" in text
    assert "not trained" not in text


@pytest.mark.parametrize("word", ["Text encoder", "withheld", "Wrong words"])
def test_a_network_that_reads_no_text_says_nothing_of_words(word):
    text = segmenter_card("weights", facts(text_encoder=None), parameters=1, terms="")
    assert "Reads no text." in text
    assert word not in text


def test_a_card_tells_how_many_masks_were_seen():
    assert "Masks:" not in segmenter_card("weights", facts(), parameters=1, terms="")
    some = facts()
    some["data"]["labelled"] = {"images": 3}
    text = segmenter_card("weights", some | {"semi_supervised": {"beta": 0.9}}, parameters=1, terms="")
    assert "- Masks: those of 3 of these images; others taught by pseudo-labels" in text
    some["data"]["labelled"] = {"images": some["data"]["images"]["fit"]}
    assert "Masks:" not in segmenter_card("weights", some, parameters=1, terms="")


def test_a_card_tells_of_pictures_that_have_no_masks():
    plain, more = facts(), facts()
    own = plain["data"]["images"]["fit"]
    more["data"]["images"] = plain["data"]["images"] | {"fit": own + 1200}
    more["data"]["labelled"] = {"images": own}
    more["data"]["unlabelled"] = {"images": 1200, "with_text": 1000, "laterality": "patient"}
    text = segmenter_card("weights", more, parameters=1, terms="")
    assert f", {own:,} images to learn from" in text
    assert (
        "own: 1,200, taught by pseudo-labels; 1,000 with a report (sides in it: patient, unless its table states them)."
        in text
    )
    assert "Masks:" not in text  # all of the data set's
    more["data"]["captions"] = ["Nuclei."]
    assert "1,000 with a report." in segmenter_card("weights", more, parameters=1, terms="")


def test_a_card_tells_of_a_training_before_and_of_a_mean():
    text = segmenter_card("weights", facts() | {"started": False}, parameters=1, terms="")
    assert "earlier training" not in text
    assert "mean of this checkpoint" not in text
    other = {"epoch": 5, "max_epochs": 6, "recipe": None, "git": None}
    again = facts() | {"started": True, "averaged": [other], "recipe": ["mmi_unet_lite"]}
    text = segmenter_card("weights", again, parameters=1, terms="")
    assert "`textray train --config mmi_unet_lite --data.root DIR --model.initial CHECKPOINT`" in text
    assert "- It started from the weights of an earlier training; the facts above are of the last one." in text
    assert "the mean of this checkpoint and of 1 more (epoch 5 of 6)" in text
