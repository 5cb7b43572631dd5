"""A training whose reports may be longer than its network reads is refused before it starts."""

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.models.guide_decoder import GuideDecoder, GuideDecoderConfig
from textray.training.segmentation import SegmentationTask


@pytest.fixture(scope="module")
def network():
    return GuideDecoder(GuideDecoderConfig(trunk="convnext_atto", text_width=32, tokens=12, mixed_tokens=(6, 4, 3)))


def test_longer_reports_are_refused(network):
    with pytest.raises(UsageError, match=r"longer than the network.*max_tokens 13.*at most 12.*model\.max_tokens"):
        SegmentationTask(network, text_encoder="tiny", max_tokens=13)


@pytest.mark.parametrize("most", [12, 5])
def test_others_are_not(network, most):
    assert SegmentationTask(network, text_encoder="tiny", max_tokens=most).max_tokens == most
