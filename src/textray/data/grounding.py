"""Batches to learn grounding from: films and the sentences of their reports. No mask is read.

Decoded pixels come from the memory-mapped cache; what is augmented, and in which words a report comes, depends on seed,
epoch and sample only, so that a resumed training sees the very batches it would have seen.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from textray import registry
from textray.augment import Augment, Preset
from textray.data.base import CaptionPolicy, Sample, check_wording, fingerprint, open_reader
from textray.data.batches import EpochLoader, EpochSampler, Item, Key, RankSampler
from textray.data.cache import PixelCache
from textray.data.studies import (
    RECORDED_AS,
    SentenceSampling,
    StudyText,
    StudyWords,
    exclusion_record,
    leave_out,
    read_patients,
)
from textray.errors import DataError, UsageError
from textray.preprocess import Normalise, Preprocess
from textray.records import Laterality, Report, Zones
from textray.text.paraphrase import corpus
from textray.text.sentences import Cut
from textray.text.tokens import MOST_PIECES, Pieces, WordPiece, build_vocabulary, pad

log = logging.getLogger(__name__)

_NO_REPORT = Report(zones=Zones(), laterality=Laterality.UNKNOWN)


class GroundingBatch(TypedDict):
    """Films and the texts drawn for them.

    The four fields of words, ``(B, L)`` int64 each, are those that
    `textray.models.sentence_grounding.SentenceGrounding.encode_text` takes.
    """

    image: Tensor  # (B, C, H, W) float32, normalised, channels last
    ids: Tensor  # rows of the vocabulary
    attention: Tensor
    word: Tensor
    sentence: Tensor
    text: list[StudyText]
    image_id: list[str]
    index: Tensor  # (B,) int64, place of each study in its split


def collate(items: list[Item]) -> GroundingBatch:
    """Stack the items of a batch; images channels last, which convolutions on CPUs like."""
    batch = pad([item["pieces"] for item in items])
    return GroundingBatch(
        image=torch.stack([item["image"] for item in items]).contiguous(memory_format=torch.channels_last),
        ids=torch.from_numpy(batch.ids),
        attention=torch.from_numpy(batch.attention),
        word=torch.from_numpy(batch.word),
        sentence=torch.from_numpy(batch.sentence),
        text=[item["text"] for item in items],
        image_id=[item["image_id"] for item in items],
        index=torch.tensor([item["index"] for item in items]),
    )


class GroundingSet(Dataset[Item]):
    """Studies with their pixels and words, the latter drawn by `StudyWords`.

    A flip of ``augment`` swaps the words' sides with the image, and is left out where that cannot be done.
    """

    def __init__(
        self,
        studies: list[Sample],
        preprocess: Preprocess,
        *,
        augment: Augment,
        sampling: SentenceSampling = "all",
        paraphrase: float = 0.0,
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        self.studies, self.preprocess, self.seed = studies, preprocess, seed
        # Flips are made here, since they change words too; no report is there for `Augment` to flip with.
        self.augment, self.flip_p = replace(augment, flip_p=0.0), augment.flip_p
        self.pixels = PixelCache(studies, preprocess, folder=cache)
        self.words = StudyWords(studies, sampling=sampling, paraphrase=paraphrase)
        self.word_pieces: WordPiece | None = None
        self.most_pieces = MOST_PIECES
        self._known: dict[tuple[str, ...], Pieces] = {}
        self._nothing = np.zeros(preprocess.size, np.bool_)

    def __len__(self) -> int:
        return len(self.studies)

    def read_with(self, word_pieces: WordPiece, most_pieces: int) -> None:
        """Fix the vocabulary, and cut every report as it stands once."""
        self.word_pieces, self.most_pieces, self._known = word_pieces, most_pieces, {}
        cut = 0
        for study in self.studies:
            if study.sentences not in self._known:
                self._known[study.sentences] = word_pieces.encode(study.sentences, most_pieces)
            pieces = self._known[study.sentences]
            cut += pieces.cut
        if cut:
            log.warning("%d of %d reports are longer than %d word pieces", cut, len(self.studies), most_pieces)

    def draw_text(
        self, index: int, rng: np.random.Generator, *, mirrored: bool = False, sampling: SentenceSampling | None = None
    ) -> tuple[Pieces, StudyText]:
        """Draw the text of a study, as `StudyWords.draw` does: its word pieces, and what it states."""
        if self.word_pieces is None:
            raise UsageError(
                "reports cannot be read without a vocabulary", do="Call GroundingData.set_vocabulary, as its task does"
            )
        statements = self.words.draw(index, rng, mirrored=mirrored, sampling=sampling)
        sentences = tuple(statement.text for statement in statements)
        pieces = self._known.get(sentences) or self.word_pieces.encode(sentences, self.most_pieces)
        return pieces, StudyText(
            sentences=tuple(sentences[i] for i in pieces.kept),
            facts=frozenset().union(*(statements[i].says for i in pieces.kept)),
            report_facts=self.words.report_facts(index, mirrored=mirrored),
        )

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = self.pixels.image(index)
        flipped = self.flip_p > 0 and rng.random() < self.flip_p and self.words.can_mirror(index)
        if flipped:
            pixels = pixels[:, ::-1]
        apart = np.random.default_rng((self.seed, epoch, index, 1))  # words change no draw of the pixels
        pieces, text = self.draw_text(index, apart, mirrored=flipped)
        pixels = self.augment(pixels, self._nothing, _NO_REPORT, rng)[0]
        return Item(
            image=torch.from_numpy(self.preprocess.normalise_pixels(pixels)),
            pieces=pieces,
            text=text,
            image_id=self.studies[index].image_id,
            index=index,
        )


class GroundingData(LightningDataModule):
    """Batches of films and sentences of a registered data set: learns from ``fit``, selects on ``inner``.

    Args:
        data: Registry name of the data set.
        root: Its folder.
        sentences: What a sentence is: ``clauses`` of a caption, a whole ``caption``, or what a report is ``split``
            into.
        sentence_sampling: Which of them are drawn, see `textray.data.studies.SentenceSampling`;
            ``random_subset`` is what the authors' released code does.
        paraphrase: Probability of other words for a caption of zones, see `textray.text.paraphrase`.
        size: Height and width that the network reads.
        normalise: Normalisation of `textray.preprocess.Preprocess`.
        channels: Channels of the image.
        letterbox: Keep the aspect ratio.
        augment: Preset of `textray.augment.Augment`.
        batch_size: Films of a training batch, of each process; the last, smaller one of an epoch is left out.
        most_pieces: Longest report in word pieces.
        captions: Wording of the captions where the data set offers more than one; ``None`` takes its first.
        missing_captions: What to do with images without a usable caption.
        split_by: How the data set is cut where it offers more than one way; ``None`` takes its first.
        exclude: File with ids of patients to leave out, one a line. Their number and hash go into the checkpoint:
            weights are scored on MS-CXR only where they were trained without its patients.
        workers: Processes that prepare batches.
        seed: Of order, augmentation and words.
        cache: Folder of the pixel cache, ``None`` for the user's.
        limit: Use only this many studies of each split, for a trial run.
    """

    def __init__(
        self,
        data: str = "qata_cov19",
        root: str | None = None,
        sentences: Cut = "clauses",
        sentence_sampling: SentenceSampling = "all",
        paraphrase: float = 0.0,
        size: tuple[int, int] = (224, 224),
        normalise: Normalise = "zscore",
        channels: int = 3,
        letterbox: bool = False,
        augment: Preset = "light",
        batch_size: int = 128,
        most_pieces: int = MOST_PIECES,
        captions: Literal["revised", "original"] | None = None,
        missing_captions: CaptionPolicy = "error",
        split_by: str | None = None,
        exclude: str | None = None,
        workers: int = 1,
        seed: int = 0,
        cache: str | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.row = registry.dataset(data)
        self.root, self.sentences, self.split_by = root, sentences, split_by
        self.captions, self.missing_captions = check_wording(data, captions, both=False), missing_captions
        self.sentence_sampling: SentenceSampling = sentence_sampling
        self.paraphrase, self.augment_name, self.augment = paraphrase, augment, Augment.preset(augment)
        if not 0 <= paraphrase <= 1:
            raise UsageError("data.paraphrase is a share", came=paraphrase, expected="0 to 1")
        if paraphrase and (self.row.captions == "free" or sentences == "split"):
            raise UsageError(
                "only captions that name zones can be paraphrased",
                came=f"paraphrase {paraphrase:g} of {data}, sentences {sentences}",
                expected="paraphrase 0",
            )
        self.preprocess = Preprocess(
            size=size, normalise=normalise, channels=channels, letterbox=letterbox, colour=self.row.colour
        )
        self.batch_size, self.most_pieces, self.workers, self.seed = batch_size, most_pieces, workers, seed
        self.cache = Path(cache) if cache is not None else None
        self.limit, self.exclude = limit, exclude
        self.excluded: dict[str, str | int] | None = None
        self.sets: dict[str, GroundingSet] = {}

    def setup(self, stage: str) -> None:
        """Read the studies and decode what is not in the cache yet."""
        if self.sets:
            return
        left_out = None if self.exclude is None else read_patients(self.exclude)
        self.excluded = None if left_out is None else exclusion_record(left_out)
        reader = open_reader(
            self.row.name,
            self.root,
            captions=self.captions,
            missing_captions=self.missing_captions,
            split_by=self.split_by,
        )
        for name in ("fit", "inner"):
            learning = name == "fit"
            studies = reader.studies(name, cut=self.sentences)
            studies = (studies if left_out is None else leave_out(studies, left_out))[: self.limit]
            if not studies:
                raise DataError(
                    f"no study of {self.row.name} is left in {name}", do="Look at data.exclude and data.limit"
                )
            self.sets[name] = GroundingSet(
                studies,
                self.preprocess,
                augment=self.augment if learning else Augment.preset("none"),
                # A network that learns one zone a text is selected by such texts: the same ones in each epoch.
                sampling=self.sentence_sampling if learning or self.sentence_sampling == "one_zone" else "all",
                paraphrase=self.paraphrase if learning else 0.0,
                seed=self.seed,
                cache=self.cache,
            )

    def own_vocabulary(self, rows: int) -> tuple[str, ...]:
        """At most ``rows`` word pieces for a text encoder of our own: of the reports to learn from and paraphrases."""
        texts = [sentence for study in self.sets["fit"].studies for sentence in study.sentences]
        return build_vocabulary([*texts, *(corpus() if self.paraphrase else ())], rows)

    def set_vocabulary(self, word_pieces: WordPiece) -> None:
        """Cut reports into these word pieces from now on."""
        for data in self.sets.values():
            data.read_with(word_pieces, self.most_pieces)

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches of ``fit``."""
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        keys = EpochSampler(len(self.sets["fit"]), seed=self.seed, shuffle=True)
        sampler = RankSampler(keys, rank=rank, ranks=ranks)
        return self._loader("fit", sampler, drop_last=len(sampler) >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Item]:
        """Batches of ``inner``, all of them in every process."""
        sampler = RankSampler(EpochSampler(len(self.sets["inner"]), seed=self.seed, shuffle=False))
        return self._loader("inner", sampler, drop_last=False)

    def _loader(self, name: str, sampler: RankSampler, *, drop_last: bool) -> DataLoader[Item]:
        return EpochLoader(
            self.sets[name],
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate,
            drop_last=drop_last,
        )

    def settings(self) -> dict[str, Any]:
        """What decides the batches, to compare when a training resumes; hashes in place of names and words."""
        reports = {
            name: fingerprint(f"{s.image_id}\t{s.sentences}" for s in data.studies) for name, data in self.sets.items()
        }
        pieces = {"batch_size": self.batch_size, "most_pieces": self.most_pieces}
        return self.describe() | pieces | {"reports_sha256": reports}

    def describe(self) -> dict[str, Any]:
        """Facts of the data for a checkpoint: name, preprocessing, words, sizes of the splits, patients left out."""
        return {
            "name": self.row.name,
            "laterality": self.row.laterality,
            "preprocess": self.preprocess.to_dict(),
            **({"wording": self.captions} if self.captions else {}),
            "sentences": self.sentences,
            "sentence_sampling": self.sentence_sampling,
            "paraphrase": self.paraphrase,
            "augment": self.augment_name,
            "seed": self.seed,
            "split_by": self.split_by or next(iter(self.row.protocols), None),
            "images": {name: len(data) for name, data in self.sets.items()},
            "groups": {name: len({s.group for s in data.studies}) for name, data in self.sets.items()},
            "ids_sha256": {name: fingerprint(s.image_id for s in data.studies) for name, data in self.sets.items()},
            **({RECORDED_AS: self.excluded} if self.excluded is not None else {}),
        }
