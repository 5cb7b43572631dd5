"""The model card says what is true of the very network."""

from textray.export.card import segmenter_card


def card(*, text_encoder="tiny", dropout=0.4, parameters=1, terms="", data=None, **more):
    """Card of a network; ``more`` are facts of its training, and ``data`` of what it was trained on."""
    facts = {
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
            **(data or {}),
        },
    }
    return segmenter_card("weights", facts | more, parameters=parameters, terms=terms)


def test_a_network_that_reads_text_tells_how_it_learnt_to():
    text = card(parameters=1234567, terms="Research use only.")
    for part in ("1,234,567 parameters", "5,495 images", "221", "160×192 px", "withheld from 40%"):
        assert part in text
    assert "with a report and with none" in text
    assert "written from the lesion masks" in text  # what the captions of the data are
    assert "Not measured" in text
    assert "earlier training" not in text
    assert "mean of this checkpoint" not in text
    assert "Masks:" not in text
    assert text.rstrip().endswith("Research use only.")


def test_a_network_that_always_had_a_report_says_so():
    text = card(dropout=0.0)
    assert "without one was not trained" in text
    assert "and with none" not in text


def test_reports_of_its_own_in_the_place_of_those_withheld_are_no_learning_without_one():
    text = card(self_guided=1.0)
    assert "withheld from 40%" in text
    assert "its own took their place" in text
    assert "without one was not trained" in text
    assert "with a report and with none" in card(self_guided=0.5)


def test_films_without_a_caption_teach_to_go_without():
    text = card(dropout=0.0, data={"without_text": {"fit": 12, "inner": 0}})
    assert "and 12 films came without one, so the network works with a report and with none" in text
    assert "not trained" not in text


def test_a_network_that_reads_no_text_says_nothing_of_words():
    text = card(text_encoder=None)
    assert "Reads no text." in text
    assert not [word for word in ("Text encoder", "withheld", "Wrong words") if word in text]


def test_a_card_tells_how_many_masks_were_seen():
    text = card(data={"labelled": {"images": 3}}, semi_supervised={"beta": 0.9})
    assert "- Masks: those of 3 of these images; pseudo-labels for the others" in text
    assert "Masks:" not in card(data={"labelled": {"images": 5495}})


def test_a_card_tells_of_pictures_that_have_no_masks():
    more = {"images": {"fit": 6695, "inner": 221}, "labelled": {"images": 5495}}
    more["unlabelled"] = {"images": 1200, "with_text": 1000, "laterality": "patient"}
    text = card(data=more)
    assert ", 5,495 images to learn from" in text
    assert "own: 1,200, labelled by pseudo-labels; 1,000 with a report (sides in it: patient, unless" in text
    assert "Masks:" not in text  # all of the data set's
    assert "1,000 with a report." in card(data=more | {"captions": ["Nuclei."]})


def test_a_card_tells_of_a_training_before_and_of_a_mean():
    assert "earlier training" not in card(started=False)
    other = {"epoch": 5, "max_epochs": 6, "recipe": None, "git": None}
    text = card(started=True, averaged=[other], recipe=["mmi_unet_lite"])
    assert "`textray train --config mmi_unet_lite --data.root DIR --model.initial CHECKPOINT`" in text
    assert "- It started from the weights of an earlier training; the facts above are of the last one." in text
    assert "the mean of this checkpoint and of 1 more (epoch 5 of 6)" in text
