"""Fixed codes of place."""

import math

import pytest

pytest.importorskip("torch")
import torch

from textray.errors import ShapeError
from textray.nn.attention import sine_positions


def test_codes_are_those_of_the_formula():
    codes = sine_positions(torch.zeros(1, 8, 2, 4)).reshape(2, 4, 8)
    for row in range(2):
        for column in range(4):
            wanted = []
            for place in ((row + 0.5) / 2 * 32, (column + 0.5) / 4 * 32):
                angles = [place * 100 ** (-i / 2) for i in range(2)]
                wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert codes[row, column].tolist() == pytest.approx(wanted, abs=1e-4)


def test_every_place_has_its_own_code_and_left_is_not_right():
    codes = sine_positions(torch.zeros(1, 24, 10, 10))[0]
    distance = torch.cdist(codes, codes) + 10 * torch.eye(100)
    assert distance.min() > 0.05


def test_channels_must_divide():
    with pytest.raises(ShapeError, match="multiple of 4"):
        sine_positions(torch.zeros(1, 6, 2, 2))
