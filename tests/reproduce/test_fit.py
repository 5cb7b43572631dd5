"""A run that is told to end ends as a whole; a fault of one row is a fault of that row."""

import pytest

pytest.importorskip("lightning")
from textray.errors import UsageError
from textray.reproduce import fit


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (SystemExit(1), KeyboardInterrupt),  # Lightning after Ctrl+C
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. "), KeyboardInterrupt),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), RuntimeError),
        (SystemExit(2), UsageError),
    ],
)
def test_who_ends_a_training_from_outside_ends_the_table(monkeypatch, raised, expected):
    def train(words):
        raise raised

    monkeypatch.setattr(fit.training, "main", train)
    with pytest.raises(expected):
        fit._train(["--config", "x"], None)
