"""Whether a network's score without text is one that it learnt for."""

import pytest

from textray.data.base import trained_without_report


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"data": {"report_dropout": 0.4}}, True),
        ({"data": {"report_dropout": 0.0}}, False),
        ({"data": {"report_dropout": 0.0, "without_text": {"fit": 0, "inner": 3}}}, False),
        ({"data": {"report_dropout": 0.0, "without_text": {"fit": 1, "inner": 0}}}, True),  # films without a caption
        ({"data": {"report_dropout": 0.6}, "self_guided": 0.5}, True),
        ({"data": {"report_dropout": 0.6}, "self_guided": 1.0}, False),  # each of them had a report of its own
        ({"data": {"name": "published"}}, None),
        ({}, None),
    ],
)
def test_a_network_learns_silence_from_samples_that_go_without(facts, expected):
    assert trained_without_report(facts) is expected
