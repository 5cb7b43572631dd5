"""The losses of sentence grounding and its sums over pieces again, pair by pair in NumPy, double precision."""

import numpy as np
import pytest
import torch
from numpy_layers import softmax

from textray.data.studies import StudyText
from textray.nn.places import gather, owners
from textray.training.grounding_losses import Temperatures, local_scores, targeted_loss, targeted_pair

TEMPERATURES = Temperatures(attention=3.0, pooling=6.0, contrastive=8.0)  # all different, none the default


def unit(x):
    return x / max(np.sqrt((x**2).sum()), 1e-8)


def score(places, units, *, released, mean):
    """Z of one film ``(D, M)`` and the real units ``(S, D)`` of one text."""
    count = places.shape[1]
    if released:
        raw = np.array([[t @ places[:, j] for j in range(count)] for t in units])
        raw = np.stack([softmax(raw[:, j]) for j in range(count)], 1)
    else:
        raw = np.array([[unit(t) @ unit(places[:, j]) for j in range(count)] for t in units])
    total = 0.0
    for row, text in zip(raw, units, strict=True):
        alpha = softmax(TEMPERATURES.attention * row)
        attended = sum(alpha[j] * places[:, j] for j in range(count))
        total += np.exp(TEMPERATURES.pooling * (unit(attended) @ unit(text)))
    z = np.log(total / len(units) if mean else total)
    return z if released else z / TEMPERATURES.pooling


def cross_entropy(scores, same):
    """Mean over rows, each of whose right columns share equally."""
    rows = []
    for row, right in zip(scores, same, strict=True):
        log_probability = row - np.log(np.exp(row).sum())
        rows.append(-log_probability[right].mean())
    return np.mean(rows)


@pytest.mark.parametrize("released", [False, True], ids=["paper", "released"])
@pytest.mark.parametrize("mean", [False, True], ids=["lse", "lme"])
def test_local_loss_is_the_one_of_the_pairs(released, mean):
    random = np.random.default_rng(4)
    places, units = random.normal(size=(4, 5, 2, 3)), random.normal(size=(4, 3, 5))
    cls = random.normal(size=(4, 5)) if released else None
    real = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]], bool)
    keys = np.array([7, 3, 7, 9])
    statements = [StudyText((), frozenset({str(key)}), frozenset({str(key)})) for key in keys]
    texts = [np.concatenate([units[k][real[k]], *([] if cls is None else [cls[k : k + 1]])]) for k in range(4)]
    z = np.array([[score(v.reshape(5, 6), t, released=released, mean=mean) for t in texts] for v in places])
    given = {
        "mode": "released" if released else "paper",
        "cls": None if cls is None else torch.from_numpy(cls),
        "temperatures": TEMPERATURES,
        "aggregate": "lme" if mean else "lse",
    }
    found = torch.from_numpy(places), torch.from_numpy(units), torch.from_numpy(real)
    scores = local_scores(*found, **given)
    np.testing.assert_allclose(scores, z, rtol=1e-10)
    for targets, same in (("diagonal", np.eye(4, dtype=bool)), ("identical_text", keys[:, None] == keys)):
        pair = targeted_pair(TEMPERATURES.contrastive * scores, statements, targets)
        logits = TEMPERATURES.contrastive * z
        assert pair[0].item() == pytest.approx(cross_entropy(logits, same))
        assert pair[1].item() == pytest.approx(cross_entropy(logits.T, same))


def test_a_match_by_dot_product_counts_how_much_is_found():
    random = np.random.default_rng(5)
    places, units = random.normal(size=(2, 5, 6)), random.normal(size=(3, 2, 5))
    real = np.array([[1, 1], [1, 0], [1, 1]], bool)
    expected = np.zeros((2, 3))
    for i, k in np.ndindex(2, 3):
        total = 0.0
        for text in units[k][real[k]]:
            alpha = softmax(TEMPERATURES.attention * np.array([unit(text) @ unit(v) for v in places[i].T]))
            total += np.exp(TEMPERATURES.pooling * (places[i] @ alpha) @ unit(text))
        expected[i, k] = np.log(total) / TEMPERATURES.pooling
    given = torch.from_numpy(places), torch.from_numpy(units), torch.from_numpy(real)
    found = local_scores(*given, temperatures=TEMPERATURES, match="dot")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    none = local_scores(2 * given[0], *given[1:], temperatures=Temperatures(attention=0.0), match="dot")
    mean = np.array([[(2 * v.mean(1)) @ unit(units[1, 0]) for v in places]])
    np.testing.assert_allclose(none[:, 1:2], mean.T, rtol=1e-10, err_msg="without attention the mean of all places")


def test_a_sigmoid_tells_each_film_and_text_on_its_own():
    says = [frozenset({"a"}), frozenset({"a", "b"}), frozenset({"c"})]
    statements = [StudyText((), one, one | {"b"}) for one in says]
    scores, bias = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.tensor(0.3)
    for targets, right in (
        ("entailed", [[1, 1, 0], [1, 1, 0], [0, 0, 1]]),
        ("diagonal", np.eye(3)),
        ("identical_text", np.eye(3)),
    ):
        chance, right = 1 / (1 + np.exp(-(scores.numpy() + 0.3))), np.array(right) == 1
        columns = [
            (-np.log(chance[true, k]).mean() - np.log(1 - chance[~true, k]).mean()) / 2
            for k, true in enumerate(right.T)
        ]
        assert targeted_loss(scores, statements, targets, bias).item() == pytest.approx(np.mean(columns))
    alike = [StudyText((), frozenset({"a"}), frozenset({"a"}))] * 2
    found = targeted_loss(scores[:2, :2], alike, "entailed", torch.tensor(0.0))
    assert found.item() == pytest.approx(np.log1p(np.exp(-scores[:2, :2].numpy())).mean() / 2), "no film is wrong"
    softmax_of = sum(torch.nn.functional.cross_entropy(x, torch.arange(3)).item() for x in (scores, scores.T))
    assert targeted_loss(scores, statements, "diagonal").item() == pytest.approx(softmax_of)


@pytest.mark.parametrize("piece", ["sum", "mean"])
@pytest.mark.parametrize("word_of", ["mean", "sum"])
def test_pieces_make_words_and_sentences(piece, word_of):
    """Two reports: [CLS] ab ##c d . [SEP] and [CLS] e f ##g ##h, where the first word of the second has one piece."""
    word = np.array([[-1, 0, 0, 1, 2, -1, -1], [-1, 0, 1, 1, 1, 2, -1]])
    sentence = np.array([[-1, 0, 0, 0, 1, -1, -1], [-1, 0, 0, 0, 0, 1, -1]])
    pieces = np.random.default_rng(0).normal(size=(2, 7, 3))
    words, word_mask = gather(torch.from_numpy(pieces), torch.from_numpy(word), mean=piece == "mean")
    owner = owners(torch.from_numpy(word), torch.from_numpy(sentence))
    sentences, sentence_mask = gather(words, owner, mean=word_of == "mean")
    assert owner.tolist() == [[0, 0, 1], [0, 0, 1]]
    assert word_mask.all()
    assert sentence_mask.all()
    fold = {"sum": np.sum, "mean": np.mean}
    for b in range(2):
        made = [fold[piece](pieces[b][word[b] == w], axis=0) for w in range(3)]
        np.testing.assert_allclose(words[b], made)
        np.testing.assert_allclose(sentences[b], [fold[word_of](np.array(made[:2]), axis=0), made[2]])
