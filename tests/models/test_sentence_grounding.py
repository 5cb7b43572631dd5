"""Sentence grounding: counts of the paper's form, options, and what is refused."""

from math import erf

import numpy as np
import pytest
import torch

from textray.errors import ShapeError, UsageError
from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig, similarity
from textray.nn.bert import BertSizes, TextTrunkConfig
from textray.nn.places import position_sines

TEXT = TextTrunkConfig(
    encoder="own",
    last_layers=2,
    dropout=0.0,
    own=BertSizes(pieces=40, width=16, layers=2, heads=2, feed_forward=24, positions=16),
)


def build(**fields):
    torch.manual_seed(0)
    return SentenceGrounding(SentenceGroundingConfig(**{"trunk": "resnet18", "enlarge": None, "text": TEXT, **fields}))


def texts(count=8):
    """Reports of one or two sentences, four pieces at most, all different: ids, attention, word, sentence."""
    ids = torch.tensor([[2, 5 + k, 6 + k, 7 + k, 8 + k, 3] for k in range(count)])
    word = torch.tensor([[-1, 0, 0, 1, 2, -1]]).repeat(count, 1)
    sentence = torch.tensor([[-1, 0, 0, 0, 1, -1]]).repeat(count, 1)
    attention = torch.ones_like(ids)
    short = slice(0, count, 2)  # every other report is cut after its first sentence
    ids[short, 4:], word[short, 4:], sentence[short, 4:] = torch.tensor([3, 0]), -1, -1
    attention[short, 5] = 0
    return ids, attention, word, sentence


def test_the_papers_form_has_its_sizes():
    with torch.device("meta"):
        network = SentenceGrounding()
        image = torch.zeros(1, 3, 224, 224)
        found = network.eval().encode_image(image)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert counts == {
        "trunk": 23_508_032, "text": 107_719_680, "local": 786_432, "pooled": 1_573_632, "projection": 0,
    }  # fmt: skip
    assert sum(counts.values()) == 133_587_776
    assert found.pooled.shape == (1, 768)
    assert found.local.shape == (1, 768, 19, 19)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_places_have_the_stride_of_their_stage(stage):
    network = build(local_stage=stage, width=12).eval()
    with torch.no_grad():
        found = network.encode_image(torch.randn(1, 3, 64, 96))
    side = 2 ** (stage + 1)
    assert found.local.shape == (1, 12, 64 // side, 96 // side)
    assert found.pooled.shape == (1, 12)


class Blank(torch.nn.Module):
    """A trunk that sees the same everywhere."""

    def forward(self, image):
        sizes = zip((64, 128, 256, 512), (4, 8, 16, 32), strict=True)
        return [torch.ones(len(image), c, image.shape[2] // s, image.shape[3] // s) for c, s in sizes]


def test_a_place_knows_where_it_is_only_with_positions():
    blind, placed = build(width=12).eval(), build(width=12, positions=True).eval()
    blind.trunk = placed.trunk = Blank()
    with torch.no_grad():
        same, apart = (network.encode_image(torch.zeros(2, 3, 64, 96)).local for network in (blind, placed))
    assert torch.equal(same, same[:, :, :1, :1].expand_as(same))
    assert torch.pdist(apart.flatten(2)[0].T).min() > 1e-3, "no two places are alike"
    assert torch.equal(apart[0], apart[1])


def test_a_film_may_be_the_mean_of_its_places():
    network = build(width=12, positions=True, pooled="places").eval()
    with torch.no_grad():
        found = network.encode_image(torch.randn(2, 3, 64, 96))
    torch.testing.assert_close(found.pooled, found.local.mean((2, 3)))
    assert len(network.trunk.stages) == 3
    assert not [name for name, _ in network.named_parameters() if name.startswith("pooled")]


@pytest.mark.parametrize("local", ["projected", "factored"])
def test_places_may_take_the_stage_before_and_be_merged(local):
    fields = {"trunk": "resnet10t", "width": 6, "local": local, "local_stage": 2, "pooled": "places", "finer": True}
    apart, merged = build(**fields).eval(), build(**fields, merge=4).eval()
    merged.load_state_dict(apart.state_dict())
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        fine, coarse = apart.encode_image(images), merged.encode_image(images)
        before, own = apart.trunk(images)[:2]
        before = (before[..., ::2, ::2] + before[..., ::2, 1::2] + before[..., 1::2, ::2] + before[..., 1::2, 1::2]) / 4
        torch.testing.assert_close(apart.local(torch.cat([own, before], 1)), fine.local)
    assert fine.local.shape == (2, 6, 8, 12)
    blocks = fine.local.reshape(2, 6, 2, 4, 3, 4).mean((3, 5))
    torch.testing.assert_close(coarse.local, blocks)
    torch.testing.assert_close(coarse.pooled, fine.pooled)
    assert build(**fields, merge=3).size_multiple == 96


def test_a_factored_place_says_how_much_of_it_lies_where():
    network = build(trunk="resnet10t", width=6, local="factored", local_stage=2, pooled="places", quiet=0.25).eval()
    images = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    scale = network.local.amount[0]
    torch.nn.init.uniform_(scale.running_mean, -0.5, 0.5, generator=torch.Generator().manual_seed(4))
    torch.nn.init.uniform_(scale.running_var, 0.5, 2.0, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        local = network.encode_image(images).local
    features = network.trunk(images)[1].detach().numpy()
    sines = position_sines(torch.zeros(1, 1, *features.shape[2:]))[0].numpy()

    def layers(part, x):
        for layer in part:
            values = {k: v.numpy() for k, v in layer.state_dict().items()}
            if not values:
                x = x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))  # GELU
            elif "running_mean" in values:
                mean, variance = values["running_mean"], values["running_var"]
                x = (x - mean[:, None, None]) / np.sqrt(variance + layer.eps)[:, None, None]
            elif layer.kernel_size == (1, 1):
                x = np.einsum("oc,chw->ohw", values["weight"][..., 0, 0], x) + values["bias"][:, None, None]
            else:  # each channel by itself
                edged = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
                around = np.lib.stride_tricks.sliding_window_view(edged, (3, 3), axis=(1, 2))
                x = np.einsum("chwij,cij->chw", around, values["weight"][:, 0]) + values["bias"][:, None, None]
        return x

    where = np.exp(layers(network.local.where, sines))
    where = (where / where.sum(0))[:5]  # the last share is of none
    assert 0.4 < 1 - where.sum(0).mean() < 0.6
    for film, found in zip(features, local.numpy(), strict=True):
        amount = np.sqrt(np.log1p(np.exp(layers(network.local.amount, film))) + 1e-6)
        np.testing.assert_allclose(found[:5], amount * where, rtol=1e-4, atol=1e-6)
        assert (found[5] == 0.25).all()


def test_texts_of_factored_places_point_where_a_film_may_say_something():
    network = build(width=6, local="factored", pooled="places").eval()
    ids, attention, word, sentence = texts()
    with torch.no_grad():
        pieces = network.encode_pieces(ids, attention)
        found = network.encode_text(ids, attention, word, sentence)
    assert (pieces[..., :5] > 0).all()
    assert (found.report[:, :5] > 0).all()
    assert not pieces[..., 5].any()
    assert not found.report[:, 5].any()
    quiet = torch.tensor([0.0, 0, 0, 0, 0, 1]).view(1, 6, 1, 1)  # nothing is found there
    assert not similarity(quiet, found.report).any()


def test_an_enlarged_image_keeps_its_proportions():
    network = build(enlarge=150).eval()
    with torch.no_grad():
        assert network.encode_image(torch.randn(1, 3, 64, 64)).local.shape[2:] == (10, 10)
        assert network.encode_image(torch.randn(1, 3, 32, 64)).local.shape[2:] == (5, 10)


@pytest.mark.parametrize("width", [None, 12])
def test_a_phrase_is_the_weighted_sum_of_its_pieces(width):
    """What a graph of the text encoder computes; one sentence, so report and sentence are the same."""
    network = build(width=width).eval()
    ids = torch.tensor([[2, 5, 6, 7, 8, 3]])
    word = torch.tensor([[-1, 0, 0, 1, 2, -1]])
    sentence = torch.where(word >= 0, 0, -1)
    with torch.no_grad():
        found = network.encode_text(ids, torch.ones_like(ids), word, sentence)
        pieces = network.encode_pieces(ids, torch.ones_like(ids))
    with pytest.raises(ShapeError, match="words and sentences do not fit"):
        network.encode_text(ids, torch.ones_like(ids), word[:, :3], sentence)
    weights = torch.tensor([[0, 1, 1, 1, 1, 0]]) / 3  # pieces are summed, three words averaged
    torch.testing.assert_close(found.report, (weights[..., None] * pieces).sum(1))
    torch.testing.assert_close(found.report, found.sentences[:, 0])
    torch.testing.assert_close(found.cls, pieces[:, 0])


def test_mean_and_sum_of_words_give_a_sentence_one_direction():
    given = texts()
    mean, total = (build(agg_word=how).eval().encode_text(*given) for how in ("mean", "sum"))
    cosine = torch.nn.functional.cosine_similarity(mean.sentences, total.sentences, dim=2)
    torch.testing.assert_close(cosine, mean.sentence_mask.float())
    reports = torch.nn.functional.cosine_similarity(mean.report[1::2], total.report[1::2], dim=1)
    assert (reports < 1 - 1e-4).all()  # long sentences outweigh short ones in a report of sums


def test_padding_leaves_a_report_as_it_is_and_one_without_words_is_zero():
    network = build().eval()
    given = texts()
    longer = [torch.nn.functional.pad(x, (0, 4), value=v) for x, v in zip(given, (0, 0, -1, -1), strict=True)]
    with torch.no_grad():
        short, padded = network.encode_text(*given), network.encode_text(*longer)
    for one, other in zip(short, padded, strict=True):
        torch.testing.assert_close(one, other)
    assert short.sentence_mask.tolist() == [[True, k % 2 == 1] for k in range(8)]
    ids = torch.tensor([[2, 3]])
    none = torch.full_like(ids, -1)
    found = network.encode_text(ids, torch.ones_like(ids), none, none)
    assert not any(part.any() for part in (found.report, found.sentence_mask, found.word_mask))


def test_similarity_is_the_cosine_of_each_phrase_with_each_place():
    generator = torch.Generator().manual_seed(3)
    local, phrases = torch.randn(2, 5, 3, 4, generator=generator), torch.randn(2, 3, 5, generator=generator)
    found = similarity(local, phrases)
    one = torch.nn.functional.cosine_similarity(local[1, :, 2, 1], phrases[1, 2], dim=0)
    torch.testing.assert_close(found[1, 2, 2, 1], one)
    torch.testing.assert_close(similarity(local, 7 * phrases[1])[1], found[1])
    for wrong in (torch.zeros(3, 4), torch.zeros(3, 3, 5), torch.zeros(5)):
        with pytest.raises(ShapeError, match="phrases do not fit"):
            similarity(local, wrong)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"local_stage": 5}, "no such stage"),
        ({"width": 0}, "impossible size"),
        ({"enlarge": -1}, "impossible size"),
        ({"local": "factored", "positions": True}, "has its position"),
        ({"merge": 0}, "merge must come out even"),
        ({"merge": 2, "enlarge": 299}, "merge must come out even"),
        ({"finer": True, "local_stage": 1}, "finer takes the stage before"),
        ({"finer": True, "enlarge": 299}, "finer takes the stage before"),
    ],
    ids=str,
)
def test_impossible_sizes_are_refused(fields, says):
    with pytest.raises(UsageError, match=says):
        build(**fields)
