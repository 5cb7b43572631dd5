"""What words mean before the first film is seen: a text encoder that starts at random learns which texts say the same.

Whole captions are among the texts here also where films are told one zone at a time, so that they can be read.

Past the paper, whose text encoder was pretrained on clinical notes. From random weights words and films wait for each
other: as long as "left" and "right" are the same vector, no film can be told by them, and while no film is, nothing
draws the words apart. Here two texts each of many reports are compared, and their cosine is brought to the share of
facts that they have in common; no film takes part.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from textray.data.grounding_module import GroundingSet
from textray.data.report_words import Said, SentenceSampling
from textray.errors import UsageError
from textray.models.sentence_grounding import SentenceGrounding
from textray.text.tokens import pad

log = logging.getLogger(__name__)

BATCH = 64
LR = 1e-3
_LOGGED = 100


def learn_words(network: SentenceGrounding, data: GroundingSet, *, steps: int) -> float:
    """Teach the text encoder of a network, in place, as the seed of the data will have it.

    Args:
        network: The network; its text encoder and what stands between that and the common space learn.
        data: Studies with a vocabulary; no film is opened. Sides are swapped in half of the texts that allow it.
        steps: Steps of ``BATCH`` pairs. The state of torch's generator is left as it was.

    Returns:
        The last root mean square difference of cosine and share of facts, 0 for no step.

    Raises:
        UsageError: If the data have no vocabulary, or nothing of the text encoder learns.
    """
    parts = torch.nn.ModuleList([network.text, network.projection])
    learning = [parameter for parameter in parts.parameters() if parameter.requires_grad]
    if not learning:
        raise UsageError("the text encoder is frozen", do="Shorten model.freeze, or set model.words_first to 0")
    optimizer = torch.optim.AdamW(learning, lr=LR, weight_decay=0.01)
    training, error = network.text.training, 0.0
    parts.train()
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            torch.manual_seed(int(np.random.SeedSequence((data.seed, 2, step)).generate_state(1)[0]))
            rng = np.random.default_rng((data.seed, 3, step))
            drawn = [(int(index), rng.random() < 0.5) for index in rng.integers(0, len(data), BATCH)]
            (one, said), (other, answered) = (_told(network, data, drawn, rng) for _ in range(2))
            loss = F.mse_loss(one @ other.T, shares(said, answered).to(one.device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            error = float(loss.detach()) ** 0.5
            if (step + 1) % _LOGGED == 0:
                log.info("words, step %d of %d: off by %.3f", step + 1, steps, error)
    optimizer.zero_grad()
    parts.train(training)
    return error


def shares(said: list[Said], other: list[Said]) -> Tensor:
    """Facts in common, of the geometric mean of the numbers of both: ``(len(said), len(other))`` in [0, 1].

    That is the cosine of sums of one direction a fact: a text of several places is then the sum of theirs, and nothing
    besides.
    """
    return torch.tensor(
        [[len(a.says & b.says) / max((len(a.says) * len(b.says)) ** 0.5, 1) for b in other] for a in said]
    )


def _told(
    network: SentenceGrounding, data: GroundingSet, drawn: list[tuple[int, bool]], rng: np.random.Generator
) -> tuple[Tensor, list[Said]]:
    """Vectors ``(B, D)`` of length one of texts about studies, and what the texts say."""
    sampling: SentenceSampling | None = "some_zones" if data.words.sampling == "one_zone" else None
    told = [
        data.told(index, rng, mirrored=turned and data.words.can_mirror(index), sampling=sampling)
        for index, turned in drawn
    ]
    batch, device = pad([pieces for pieces, _ in told]), next(network.text.parameters()).device
    tensors = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.attention, batch.word, batch.sentence))
    return F.normalize(network.encode_text(*tensors).report.float(), dim=1, eps=1e-8), [said for _, said in told]
