"""Losses of sentence grounding: printed values, what must not change them, what they refuse."""

import math

import pytest
import torch

from textray.data.studies import StudyText
from textray.errors import ShapeError, UsageError
from textray.training.grounding_losses import (
    Compared,
    GroundingCriterion,
    Temperatures,
    keys_of,
    local_scores,
    targeted_pair,
)

MODES = ("paper", "released")


def wave(shape, a, b):
    """sin(a n + b) for n = 1, 2, ... in C order."""
    n = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(a * n + b).view(shape)


POOLED, REPORT = wave((3, 4), 0.7, 0.1), wave((3, 4), 0.9, 0.3)
LOCAL, UNITS = wave((3, 4, 6), 0.37, 0.2), wave((3, 3, 4), 0.53, 0.4)
MASK = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])


SAID = [StudyText((), frozenset({name}), frozenset({name})) for name in "abc"]


def compared(films=POOLED, reports=REPORT, local=LOCAL, units=UNITS, mask=MASK):
    """As a training has them, of texts that all say something else."""
    return Compared(films, local, reports, units, mask, torch.zeros_like(reports), SAID[: len(films)])


def criterion(**temperatures):
    """That of a training in the paper's form."""
    return GroundingCriterion(
        mode="paper", targets="diagonal", aggregate="lse", match="cosine", contrast="softmax", global_weight=1.0,
        local_weight=1.0, temperatures=Temperatures(**temperatures),
    )  # fmt: skip


def film_pair(**changed):
    """Films against reports, in both directions."""
    found = compared(**changed)
    return targeted_pair(10 * criterion()._films(found), found.statements, "diagonal")


def local_pair(**options):
    """Places against units, in both directions."""
    return targeted_pair(10 * local_scores(LOCAL, UNITS, MASK, **options), SAID, "diagonal")


def near(pair):
    return pytest.approx(pair, abs=1e-5)


def numbers(pair):
    return [part.item() for part in pair]


def test_global_loss_has_the_values_of_the_specification():
    assert numbers(film_pair()) == near([3.810291, 3.733715])
    assert criterion()(compared()).whole.item() == near(3.810291 + 3.733715)


@pytest.mark.parametrize(
    ("mode", "pair", "total", "scores"),
    [
        (
            "paper",
            [1.075405, 0.935559],
            9.554970,
            [[0.229693, 0.275296, 0.195916], [0.176106, 0.296013, -0.189699], [0.245942, 0.270610, 0.170562]],
        ),
        (
            "released",
            [2.898411, 1.451163],
            11.893581,
            [[1.137815, 1.361454, 0.967925], [0.865416, 1.462149, -0.970858], [1.244237, 1.322660, 0.726711]],
        ),
    ],
    ids=MODES,
)
def test_local_loss_has_the_values_of_the_specification(mode, pair, total, scores):
    found = local_pair(mode=mode)
    assert numbers(found) == near(pair)
    assert sum(found + film_pair()).item() == near(total)
    assert local_scores(LOCAL, UNITS, MASK, mode=mode).tolist() == [near(row) for row in scores]
    if mode == "paper":  # that of a training in the released mode has [CLS] too
        losses = criterion()(compared())
        assert (losses.local.item(), losses.total.item()) == near((sum(pair), total))


def test_eq_1_as_printed_tells_nothing_apart_and_ours_does():
    """As printed, its sum runs over matched pairs: constant where they are equally alike, whatever the others are."""

    def printed(image, text):
        alike = (image * text).sum(1)
        return (alike.logsumexp(0) - alike.mean()).item()

    eye = torch.eye(3)
    assert printed(eye, eye) == pytest.approx(math.log(3))
    assert printed(10 * eye, eye) == pytest.approx(math.log(3))
    same = torch.ones(3, 3)  # every report fits every film equally well
    assert printed(same, same) == pytest.approx(math.log(3))
    assert film_pair(films=same, reports=same)[0].item() == pytest.approx(math.log(3))
    assert film_pair(films=eye, reports=eye)[0].item() < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_order_of_places_and_padding_change_nothing(mode):
    wanted = local_scores(LOCAL, UNITS, MASK, mode=mode)
    torch.testing.assert_close(local_scores(LOCAL[..., [3, 0, 5, 1, 4, 2]], UNITS, MASK, mode=mode), wanted)
    torch.testing.assert_close(local_scores(LOCAL.unflatten(2, (2, 3)), UNITS, MASK, mode=mode), wanted)
    longer = torch.cat([UNITS, torch.full((3, 2, 4), 50.0)], 1)
    padded = torch.nn.functional.pad(MASK, (0, 2))
    torch.testing.assert_close(local_scores(LOCAL, longer, padded, mode=mode), wanted)


def test_swapped_sides_transpose_the_global_loss():
    forth, back = film_pair(), film_pair(films=REPORT, reports=POOLED)
    assert numbers(forth) == pytest.approx(numbers(back)[::-1])


def test_length_of_image_features_matters_in_the_released_mode_only():
    lengths = torch.tensor([0.5, 7.0, 3.0], dtype=torch.float64)[:, None]
    assert numbers(film_pair(films=POOLED * lengths)) == pytest.approx(numbers(film_pair()))
    scaled, wanted = (local_scores(3 * LOCAL, UNITS, MASK), local_scores(LOCAL, UNITS, MASK))
    torch.testing.assert_close(scaled, wanted)
    released = [local_scores(k * LOCAL, UNITS, MASK, mode="released") for k in (1, 3)]
    assert (released[0] - released[1]).abs().max() > 1e-3


def test_one_sentence_without_cls_attends_evenly_in_the_released_mode():
    one, mask = UNITS[:, :1], MASK[:, :1]
    r = torch.nn.functional.cosine_similarity(LOCAL.mean(2)[:, None], one[:, 0][None], dim=2)
    torch.testing.assert_close(local_scores(LOCAL, one, mask, mode="released"), 5 * r)
    with_cls = local_scores(LOCAL, one, mask, mode="released", cls=REPORT)
    both = torch.stack([one[:, 0], REPORT], 1)
    torch.testing.assert_close(with_cls, local_scores(LOCAL, both, torch.ones(3, 2, dtype=torch.bool), mode="released"))


@pytest.mark.parametrize("mode", MODES)
def test_a_mean_over_units_favours_no_long_text(mode):
    """A text that says its one sentence three times scores as the one that says it once."""
    thrice = UNITS[:1, :1].expand(3, 3, 4)
    several = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    mean = local_scores(LOCAL, thrice, several, mode=mode, aggregate="lme")
    torch.testing.assert_close(mean, mean[:, :1].expand(3, 3))
    summed = local_scores(LOCAL, thrice, several, mode=mode)
    gained = torch.full((3,), math.log(3) / (5 if mode == "paper" else 1), dtype=torch.float64)
    torch.testing.assert_close(summed[:, 2] - summed[:, 0], gained)


@pytest.mark.parametrize("mode", MODES)
def test_padding_learns_nothing(mode):
    given = [LOCAL.clone().requires_grad_(), UNITS.clone().requires_grad_()]
    sum(targeted_pair(10 * local_scores(*given, MASK, mode=mode), SAID, "diagonal")).backward()
    assert all(x.grad.abs().max() > 0 for x in given)
    assert not given[1].grad[~MASK].any()


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_widened(mode):
    with torch.autocast("cpu", torch.bfloat16):
        found = local_scores(LOCAL.bfloat16(), UNITS.bfloat16(), MASK, mode=mode)
    assert found.dtype == torch.float32
    rounded = local_scores(LOCAL.bfloat16().float(), UNITS.bfloat16().float(), MASK, mode=mode)
    torch.testing.assert_close(found, rounded)


def test_one_pair_has_no_loss():
    found = criterion()(compared(POOLED[:1], REPORT[:1], LOCAL[:1], UNITS[:1], MASK[:1]))
    assert [x.item() for x in found] == [0, 0, 0]


def test_equal_texts_are_not_negatives_of_each_other():
    keys = keys_of(
        [StudyText((), frozenset({text}), frozenset()) for text in ("Left lung.", " left  LUNG.", "Right lung.")]
    )
    assert keys[0] == keys[1] != keys[2]
    scores = torch.tensor([[9.0, 9, 0], [9, 9, 0], [0, 0, 9]])
    assert targeted_pair(scores, SAID, "diagonal")[0] > 0.4
    pair = targeted_pair(scores, [SAID[0], SAID[0], SAID[2]], "identical_text")
    floor = 2 / 3 * math.log(2)  # two right answers share what is right
    assert numbers(pair) == pytest.approx([floor, floor], abs=1e-3)
    assert targeted_pair(scores, SAID, "identical_text") == targeted_pair(scores, SAID, "diagonal")


def test_keys_are_the_same_on_every_machine():
    assert keys_of([StudyText((), frozenset({"left lung"}), frozenset())]).tolist() == [6129734923812329648]


def test_temperatures_multiply():
    """Ten times the temperature, a tenth of the multiplier: the scores of a fitted batch fall."""
    fitted = compared(films=torch.eye(3), reports=torch.eye(3))
    assert criterion(contrastive=0.1)(fitted).whole > 2
    assert criterion(contrastive=100)(fitted).whole < 1e-6


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="places and units"):
        local_scores(LOCAL, UNITS[..., :3], MASK)
    with pytest.raises(ShapeError, match="no unit"):
        local_scores(LOCAL, UNITS, torch.zeros_like(MASK))
    with pytest.raises(UsageError, match="released mode only"):
        local_scores(LOCAL, UNITS, MASK, cls=REPORT)
