"""Training on transposed films, as the authors' released codes do: what it passes on, and what it refuses."""

import pytest

pytest.importorskip("lightning")

from textray.data.segmentation import SegmentationData
from textray.errors import UsageError


def test_way_of_resizing_reaches_the_preprocessing_and_the_checkpoint():
    data = SegmentationData(data="phantom", transpose=True, interpolation="bicubic", augment="paper")
    assert (data.preprocess.transpose, data.preprocess.interpolation) == (True, "bicubic")
    kept = data.describe()["preprocess"]
    assert (kept["transpose"], kept["interpolation"]) == (True, "bicubic")


@pytest.mark.parametrize("wrong", [{"augment": "strong"}, {"augment": "paper", "report_withheld": 0.1}])
def test_what_must_know_left_from_right_is_refused(wrong):
    with pytest.raises(UsageError, match="left and right in their rows"):
        SegmentationData(data="phantom", transpose=True, **wrong)
