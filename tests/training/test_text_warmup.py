"""Words before films: texts that say the same come together, those of other sides apart, and nothing else changes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
from textray.data.grounding import GroundingData  # noqa: E402
from textray.data.studies import StudyText  # noqa: E402
from textray.errors import UsageError  # noqa: E402
from textray.models.sentence_grounding import SentenceGrounding, SentenceGroundingConfig  # noqa: E402
from textray.nn.bert import BertSizes, TextTrunkConfig  # noqa: E402
from textray.text.tokens import WordPiece, pad  # noqa: E402
from textray.training.grounding import shares, warm_up_text  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    module = GroundingData(
        "phantom", size=(32, 32), workers=0, paraphrase=0.5, cache=str(tmp_path_factory.mktemp("cache"))
    )
    module.setup("fit")
    module.set_vocabulary(WordPiece(module.own_vocabulary(512)))
    return module


def network():
    torch.manual_seed(0)
    own = BertSizes(pieces=512, width=32, layers=1, heads=2, feed_forward=64, positions=97)
    text = TextTrunkConfig(encoder="own", last_layers=1, dropout=0.1, own=own)
    return SentenceGrounding(SentenceGroundingConfig(trunk="convnext_atto", enlarge=None, width=24, text=text))


def alike(net, data, one, other):
    batch = pad([data.sets["fit"].word_pieces.encode((text,)) for text in (one, other)])
    with torch.no_grad():
        a, b = net.eval().encode_text(*map(torch.from_numpy, (batch.ids, batch.attention, batch.word, batch.sentence)))[
            4
        ]
    return float(torch.cosine_similarity(a, b, dim=0))


def test_shares_count_facts():
    said = [StudyText((), frozenset(facts), frozenset()) for facts in ({"a"}, {"a", "b"}, {"b", "c", "d"})]
    expected = np.array([[1, 2**-0.5, 0], [2**-0.5, 1, 6**-0.5], [0, 6**-0.5, 1]])
    np.testing.assert_allclose(shares(said, said).numpy(), expected, rtol=1e-6)


def test_words_are_learnt_without_films_and_nothing_else_changes(data):
    net = network().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    assert warm_up_text(net, data.sets["fit"], steps=2) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not net.text.training
    assert all(parameter.grad is None for parameter in net.parameters())
    changed = {
        name.partition(".")[0] for name, value in before.items() if not torch.equal(net.state_dict()[name], value)
    }
    assert changed == {"text", "projection"}


@pytest.mark.slow
def test_sides_come_apart(data):
    net = network().eval()
    sides, words = ("left upper zone", "right upper zone"), ("left upper zone", "upper left lung")
    before = alike(net, data, *sides)
    assert 0 < warm_up_text(net, data.sets["fit"], steps=250) < 0.3
    assert alike(net, data, *sides) < min(before, alike(net, data, *words)) - 0.15


def test_the_same_seed_learns_the_same(data):
    one, other = network(), network()
    warm_up_text(one, data.sets["fit"], steps=2)
    torch.rand(3)
    warm_up_text(other, data.sets["fit"], steps=2)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_frozen_text_encoder_is_refused(data):
    net = network()
    net.text.requires_grad_(False)
    net.projection.requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        warm_up_text(net, data.sets["fit"], steps=1)
