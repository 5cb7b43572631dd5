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
    retrieval,
    right_texts,
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
    lengths = torch.tensor([0.5, 7.0, 3.0], dtype=torch.float64)[:, None]
    assert numbers(film_pair(films=POOLED * lengths)) == near([3.810291, 3.733715])


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


def test_keys_are_those_of_the_facts_on_every_machine():
    facts = [{"left lung."}, {" left  LUNG."}, {"right lung."}, {"x", "y"}, {"y", "x"}, {"left lung"}]
    keys = keys_of([StudyText((str(n),), frozenset(one), frozenset()) for n, one in enumerate(facts)])
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] == keys[4]
    assert keys[5] == 6129734923812329648


def test_a_text_is_right_for_every_film_that_it_is_true_of():
    statements = [
        StudyText((), frozenset({"left lower"}), frozenset({"left lower", "unilateral"})),
        StudyText((), frozenset({"bilateral", "left lower"}), frozenset({"left lower", "right lower", "bilateral"})),
    ]
    assert right_texts(statements, "entailed").tolist() == [[True, False], [True, True]]
    scores = torch.tensor([[2.0, 1.0], [0.5, 3.0]])
    rows, columns = scores.log_softmax(1), scores.log_softmax(0)
    found = targeted_pair(scores, statements, "entailed")
    torch.testing.assert_close(found[0], -(rows[0, 0] + (rows[1, 0] + rows[1, 1]) / 2) / 2)
    torch.testing.assert_close(found[1], -((columns[0, 0] + columns[1, 0]) / 2 + columns[1, 1]) / 2)


def test_retrieval_counts_films_whose_own_report_is_nearest():
    films = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.1, 1.0], [1.0, 0.1]])
    reports = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    assert retrieval(films, reports, torch.tensor([7, -5, -5, 3])) == 0.75


def test_temperatures_multiply():
    """Ten times the temperature, a tenth of the multiplier: the scores of a fitted batch fall."""
    fitted, same = (compared(films=films, reports=films) for films in (torch.eye(3), torch.ones(3, 3)))
    assert criterion(contrastive=0.1)(fitted).whole > 2
    assert criterion(contrastive=100)(fitted).whole < 1e-6
    assert criterion()(same).whole == pytest.approx(2 * math.log(3))  # every report fits every film equally well


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="places and units"):
        local_scores(LOCAL, UNITS[..., :3], MASK)
    with pytest.raises(ShapeError, match="no unit"):
        local_scores(LOCAL, UNITS, torch.zeros_like(MASK))
    with pytest.raises(UsageError, match="released mode only"):
        local_scores(LOCAL, UNITS, MASK, cls=REPORT)
