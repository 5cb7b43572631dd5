"""Fields that configs no longer have: checkpoints and bundles of before hold them still."""

import pytest
import torch

import textray
from textray import registry
from textray.errors import UsageError
from textray.inference.bundle import inside
from textray.models.build import build

FIELDS = {
    "mmi_unet": {"eca_kernel": None},
    "sentence_grounding": {"fuse": False, "tiles": 1, "agg_piece": "sum"},
    "sgseg": {"guide_gradient": False},
    "sgseg_simple": {"guide_gradient": False},
}


@pytest.mark.parametrize("model", FIELDS)
def test_they_are_taken_at_the_value_that_is_left_alone(model):
    row = registry.model(model).form("paper")
    with torch.device("meta"):
        assert build(row, FIELDS[model]).config == build(row, {}).config
        for name in FIELDS[model]:
            with pytest.raises(UsageError, match=rf"unknown fields.*{name}"):
                build(row, {name: 7})
        with pytest.raises(UsageError, match="unknown fields"):
            build(registry.model("unet").form("paper"), FIELDS[model])


def test_weights_inside_are_built():
    if "sgseg_lite" not in inside():
        pytest.skip("no weights inside this checkout")
    textray.load_network("sgseg_lite")
