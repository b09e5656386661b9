"""Batches of utterances of similar length, in an order that depends on nothing but the seed and the epoch."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling.dynamic_bucketing import DynamicBucketingSampler, FixedBucketBatchSizeConstraint
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import files
from asr.exceptions import CorpusError

Waveform = NDArray[np.float32]
Augmentation = Callable[[Waveform, np.random.Generator], Waveform]
_Heard = tuple[Waveform, Waveform | None]

PREFETCH = 4
"""Batches that are being read while one is in use."""
BUFFER = 20_000
"""Utterances among which a batch is drawn."""


@dataclass(frozen=True)
class Batch:
    """Utterances read together.

    Args:
        ids: of the utterances.
        waveforms: float32 ``(batch, samples)`` at 16 kHz, zero after each utterance's end.
        lengths: int64 ``(batch,)`` in samples.
        texts: transcripts.
        speakers: empty where the corpus does not say.
        languages: codes, empty where the corpus does not say; no code at all is the same.
        undisturbed: as ``waveforms``, what the loader's ``undisturbed`` made of them, if it was given one.
    """

    ids: tuple[str, ...]
    waveforms: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    speakers: tuple[str, ...]
    languages: tuple[str, ...] = ()
    undisturbed: Tensor | None = None


@dataclass(frozen=True)
class Dropped:
    """Utterances left out, by reason.

    Args:
        too_short: below the minimum of seconds.
        too_long: above the maximum of seconds.
        text_too_long: the transcript does not fit the encoder's positions.
    """

    too_short: int = 0
    too_long: int = 0
    text_too_long: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.too_short + self.too_long + self.text_too_long


def select(
    cuts: CutSet,
    *,
    minimum_seconds: float,
    maximum_seconds: float,
    fits: Callable[[float, str], bool] | None,
) -> tuple[CutSet, Dropped]:
    """Keep the utterances that can be trained on, and count the others.

    Args:
        fits: whether a text can be aligned with so many seconds of audio. The CTC loss is infinite where it cannot.
    """
    kept: list[Cut] = []
    short = long = text = 0
    for cut in cuts:
        if cut.duration < minimum_seconds:
            short += 1
        elif cut.duration > maximum_seconds:
            long += 1
        elif fits is not None and not fits(cut.duration, _text(cut)):
            text += 1
        else:
            kept.append(cut)
    return CutSet.from_cuts(kept), Dropped(short, long, text)


class BatchLoader:
    """Reads batches by seconds of audio, bucketed by duration.

    All ranks walk through the same sequence of batches and each takes every ``world_size``-th of it; batches are halved
    where the last ones are fewer than the ranks, so that all get the same number and none waits for ever. No utterance
    is lost; where fewer are left than there are ranks, some are given twice.

    Args:
        cuts: the utterances.
        maximum_seconds: bound of a batch with its padding: longest utterance times number of utterances. A longer
            utterance makes a batch by itself.
        shuffle: a new order each epoch; otherwise every epoch is the same.
        seed: of the order and of the augmentation.
        rank: this process among ``world_size``.
        workers: threads that read audio ahead of use; 0 reads in the calling thread, when asked.
        buckets: groups of similar duration, of about equal total duration.
        augmentation: changes a waveform; its generator depends on the seed, the epoch and the utterance alone.
        maximum_utterances: further bound of a batch.
        undisturbed: makes a second waveform of the same length, for a teacher, from an equal generator.
    """

    def __init__(
        self,
        cuts: CutSet,
        *,
        maximum_seconds: float,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        buckets: int = 10,
        augmentation: Augmentation | None = None,
        maximum_utterances: int | None = None,
        undisturbed: Augmentation | None = None,
    ) -> None:
        self._cuts = list(cuts)
        if not self._cuts:
            raise CorpusError("no utterance is left to make batches of; check the manifest and the limits of duration.")
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._workers = workers
        self._augmentation = augmentation
        self._undisturbed = undisturbed
        self._edges = _edges([cut.duration for cut in self._cuts], buckets)
        limit = maximum_utterances or len(self._cuts)
        self._sizes = [max(1, min(limit, int(maximum_seconds / edge))) for edge in self._edges]
        self._plans: dict[int, tuple[int, str]] = {}

    def count(self, number: int) -> int:
        """Batches of an epoch on this rank (the same on every rank), without reading audio."""
        return self._plan(number)[0]

    def order(self, number: int) -> str:
        """Digest of the utterances of each batch of an epoch on all ranks, without reading audio; the same on every rank."""
        return self._plan(number)[1]

    def _plan(self, number: int) -> tuple[int, str]:
        number = number if self._shuffle else 0
        if number not in self._plans:
            steps = self._steps(number)
            names = "\n\n".join("\n".join(" ".join(_id(cut) for cut in group) for group in step) for step in steps)
            self._plans = {number: (len(steps), hashlib.blake2b(names.encode(), digest_size=8).hexdigest())}
        return self._plans[number]

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, the first ``skip`` left out unread; with the rest exactly as without ``skip``.

        Raises:
            AudioError: a file that cannot be read.
        """
        groups = [step[self._rank] for step in self._steps(number)[skip:]]
        if self._workers == 0:
            for group in groups:
                yield _collate(group, [self._read(cut, number) for cut in group])
            return
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="read-audio")
        pending: deque[tuple[list[Cut], list[Future[_Heard]]]] = deque()
        try:
            for group in groups:
                pending.append((group, [pool.submit(self._read, cut, number) for cut in group]))
                if len(pending) > PREFETCH:
                    yield _finish(*pending.popleft())
            while pending:
                yield _finish(*pending.popleft())
        finally:
            # Also when the caller stops in mid-epoch: nothing is left reading behind its back.
            pool.shutdown(cancel_futures=True)

    def _steps(self, number: int) -> list[list[list[Cut]]]:
        """What each batch is made of: for each step of training, one list of utterances a rank."""
        number = number if self._shuffle else 0
        generator = random.Random(f"{self._seed} {number}")
        cuts = list(self._cuts)
        if self._shuffle:
            # The sampler shuffles within its buffer, which a large corpus sorted by speaker exceeds by far.
            generator.shuffle(cuts)
        sampler = DynamicBucketingSampler(
            # A plain list, because lhotse warns of a CutSet in memory.
            cuts,
            constraint=FixedBucketBatchSizeConstraint(self._edges, self._sizes),
            duration_bins=self._edges[:-1],
            shuffle=self._shuffle,
            buffer_size=BUFFER,
            seed=generator.getrandbits(32),
            # Every rank sees the whole sequence and divides it below. What lhotse gives to several ranks at the end of
            # an epoch may mix long and short utterances to more than a batch may hold.
            rank=0,
            world_size=1,
            # The other way to choose a bucket ends an epoch early, with utterances left (lhotse 1.33).
            sync_buckets=True,
        )
        groups = sorted((list(group) for group in sampler), key=lambda group: max(cut.duration for cut in group))
        # Utterances of one step are of similar length on all ranks, so that none waits long for another.
        steps = [groups[first : first + self._world_size] for first in range(0, len(groups), self._world_size)]
        _complete(steps[-1], self._world_size)
        if self._shuffle:
            generator.shuffle(steps)
        return steps

    def _read(self, cut: Cut, number: int) -> _Heard:
        waveform = _audio(cut)
        digest = hashlib.blake2b(_id(cut).encode(), digest_size=8).digest()
        seed = [self._seed, number, int.from_bytes(digest, "little")]
        augmented = waveform if self._augmentation is None else self._augmentation(waveform, np.random.default_rng(seed))
        return augmented, None if self._undisturbed is None else self._undisturbed(waveform, np.random.default_rng(seed))


def _edges(durations: Sequence[float], buckets: int) -> list[float]:
    """Longest duration of each bucket, ascending, so that the buckets hold about equal seconds of audio."""
    ordered = np.sort(np.asarray(durations, dtype=np.float64))
    shares = np.cumsum(ordered) / ordered.sum()
    last = np.searchsorted(shares, np.arange(1, buckets) / buckets)
    return [*np.unique(ordered[np.append(last, len(ordered) - 1)]).tolist()]


def _complete(step: list[list[Cut]], world_size: int) -> None:
    """Halve batches until there is one for each rank; repeat one where there are not even enough utterances."""
    while len(step) < world_size:
        largest = max(step, key=len)
        half = len(largest) // 2
        if half == 0:
            step.append(step[0])
        else:
            step.append(largest[half:])
            del largest[half:]


def _audio(cut: Cut) -> Waveform:
    path = cut.recording.sources[0].source
    whole = cut.start == 0 and cut.duration == cut.recording.duration
    return files.read(path) if whole else files.read(path, cut.start, cut.duration)


def _finish(group: list[Cut], futures: list[Future[_Heard]]) -> Batch:
    return _collate(group, [future.result() for future in futures])


def _collate(group: list[Cut], heard: list[_Heard]) -> Batch:
    undisturbed = [second for _, second in heard if second is not None]
    return Batch(
        ids=tuple(_id(cut) for cut in group),
        waveforms=_padded([waveform for waveform, _ in heard]),
        lengths=torch.tensor([len(waveform) for waveform, _ in heard], dtype=torch.int64),
        texts=tuple(_text(cut) for cut in group),
        speakers=tuple(cut.supervisions[0].speaker or "" for cut in group),
        languages=tuple(cut.supervisions[0].language or "" for cut in group),
        undisturbed=_padded(undisturbed) if undisturbed else None,
    )


def _padded(waveforms: list[Waveform]) -> Tensor:
    padded = torch.zeros(len(waveforms), max(map(len, waveforms)), dtype=torch.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return padded


def _id(cut: Cut) -> str:
    # Not the cut's, which lhotse changes where it takes part of a cut or repeats it.
    return str(cut.supervisions[0].id)


def _text(cut: Cut) -> str:
    return str(cut.supervisions[0].text)
