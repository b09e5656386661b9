"""Where each sound of an utterance is in what the encoder says of it: the best path of a CTC head of sounds, learned for this."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from asr.model.text_to_encoder import padded
from asr.synthesis.pronunciation import BETWEEN, PAUSE

SILENT = 0
"""Number of silence among the units, and of CTC's blank."""
# Seconds that a sound reaches before and after CTC's peak where nothing is beside it; wider gaps between words are silent.
_BEFORE, _AFTER, _GAP = 0.06, 0.08, 0.24
_WIDTH, _KERNEL = 256, 5
_BATCH_POSITIONS = 4000
_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Spoken:
    """An utterance: the encoder's output (positions, width), its sounds, and which of them begin a word."""

    values: Tensor
    sounds: tuple[int, ...]
    first: tuple[bool, ...]


@dataclass(frozen=True)
class Aligned:
    """Units with silence among them and how many positions each lasts; together they are the whole utterance."""

    units: tuple[int, ...]
    durations: tuple[float, ...]


def numbered(units: Sequence[str], numbers: dict[str, int]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Sounds as numbers, and which of them begin a word; a unit without a number is left out."""
    sounds: list[int] = []
    first: list[bool] = []
    begins = True
    for unit in units:
        if unit in (PAUSE, BETWEEN):
            begins = True
        elif unit in numbers:
            sounds.append(numbers[unit])
            first.append(begins)
            begins = False
    return tuple(sounds), tuple(first)


class Aligner(nn.Module):
    """A CTC head of sounds on the encoder's output; two layers, since it is asked for time and not for what it has not met.

    Args:
        width: of the encoder's output.
        units: number of units, silence (blank) the first.
        rate: positions in a second.
    """

    def __init__(self, width: int, units: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.layers = nn.Sequential(
            nn.Conv1d(width, _WIDTH, _KERNEL, padding=_KERNEL // 2), nn.GELU(), nn.Dropout(0.1), nn.Conv1d(_WIDTH, units, 1)
        )

    def forward(self, values: Tensor) -> Tensor:
        """Log-probabilities float32 (batch, positions, units) of the encoder's output (batch, positions, width)."""
        scores: Tensor = self.layers(values.transpose(1, 2))
        return scores.transpose(1, 2).float().log_softmax(dim=-1)

    def fit(
        self,
        utterances: Sequence[Spoken],
        steps: int,
        seed: int,
        autocast: Callable[[], torch.autocast],
        report: Callable[[str], None],
    ) -> None:
        """Learn the sounds of utterances. In its first hundreds of steps, to CTC silence is a good answer to everything."""
        optimizer = torch.optim.AdamW(self.parameters(), _LEARNING_RATE)
        generator = random.Random(seed)
        self.train()
        losses: list[float] = []
        while len(losses) < steps:
            begun = len(losses)
            for batch in batches([len(each.values) for each in utterances], _BATCH_POSITIONS, generator)[: steps - begun]:
                for group in optimizer.param_groups:
                    group["lr"] = _LEARNING_RATE * (1 - len(losses) / steps)
                loss = self._loss([utterances[index] for index in batch], autocast)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.parameters(), 5.0)
                optimizer.step()
                losses.append(float(loss.detach()))
            report(f"sounds, step {len(losses)} of {steps}: {sum(losses[begun:]) / (len(losses) - begun):.3f} nats")
        self.eval()

    def _loss(self, utterances: Sequence[Spoken], autocast: Callable[[], torch.autocast]) -> Tensor:
        device = next(self.parameters()).device
        values, lengths = padded([each.values.float() for each in utterances])
        with autocast():
            log_probabilities = self(values.to(device))
        return F.ctc_loss(
            log_probabilities.transpose(0, 1),
            torch.tensor([sound for each in utterances for sound in each.sounds], device=device),
            lengths.to(device),
            torch.tensor([len(each.sounds) for each in utterances], device=device),
            zero_infinity=True,
        )

    @torch.no_grad()
    def align(self, utterance: Spoken) -> tuple[Aligned, Tensor] | None:
        """The best path of an utterance, and the mean probabilities of each sound's positions, (sounds, units).

        None where the sounds are more than the positions.
        """
        device = next(self.parameters()).device
        log_probabilities = self(utterance.values.float()[None].to(device)).cpu()
        repeated = sum(one == other for one, other in pairwise(utterance.sounds))
        if not utterance.sounds or len(utterance.sounds) + repeated > log_probabilities.shape[1]:
            return None
        path, _ = torchaudio.functional.forced_align(log_probabilities, torch.tensor([utterance.sounds], dtype=torch.int32))
        spans = spans_of(path[0].tolist())
        heard = torch.stack([log_probabilities[0, begin:end].exp().mean(dim=0) for begin, end in spans])
        return durations(spans, utterance, log_probabilities.shape[1], self.rate), heard


def spans_of(path: Sequence[int]) -> list[tuple[int, int]]:
    """First position of each sound of a CTC path, and the first after it."""
    spans: list[tuple[int, int]] = []
    before = SILENT
    for position, unit in enumerate(path):
        if unit != SILENT and unit == before:
            spans[-1] = (spans[-1][0], position + 1)
        elif unit != SILENT:
            spans.append((position, position + 1))
        before = unit
    return spans


def durations(spans: Sequence[tuple[int, int]], utterance: Spoken, positions: int, rate: float) -> Aligned:
    """Sounds reach to the middle between two of them; where words are far apart, silence is between.

    Args:
        spans: first position of each sound on CTC's path, and the first after it.
        positions: of the whole utterance, ``rate`` a second.
    """
    before, after, widest = _BEFORE * rate, _AFTER * rate, _GAP * rate
    peaks = [(begin + end) / 2 for begin, end in spans]
    units: list[int] = [SILENT]
    edges = [0.0, max(peaks[0] - before, 0.0)]
    for index, sound in enumerate(utterance.sounds):
        units.append(sound)
        if index + 1 == len(peaks):
            edges.append(min(peaks[index] + after, float(positions)))
        elif utterance.first[index + 1] and peaks[index + 1] - peaks[index] > widest:
            units.append(SILENT)
            edges += [peaks[index] + after, peaks[index + 1] - before]
        else:
            edges.append((peaks[index] + peaks[index + 1]) / 2)
    units.append(SILENT)
    edges.append(float(positions))
    return Aligned(tuple(units), tuple(end - begin for begin, end in pairwise(edges)))


def confusions(heard: Sequence[tuple[tuple[int, ...], Tensor]], units: int) -> Tensor:
    """Share of each unit that is heard for another, float32 (units, units), rows sum to 1.

    Args:
        heard: of utterances that the aligner has not learned, their sounds and the probabilities ``Aligner.align`` found.
    """
    counts = torch.zeros(units, units)
    for sounds, probabilities in heard:
        for sound, row in zip(sounds, probabilities, strict=True):
            counts[sound] += row
    counts[:, SILENT] = 0  # a blank is no other sound
    # A unit that was not met is heard as itself.
    counts += 0.5 * torch.eye(units)
    return counts / counts.sum(dim=1, keepdim=True)


def batches(lengths: Sequence[int], most: int, generator: random.Random) -> list[list[int]]:
    """Indices of utterances of similar length, whose positions with padding are ``most`` at most, in a new order."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index] * generator.uniform(0.9, 1.1))
    found: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if not found or longest * (len(found[-1]) + 1) > most:
            found.append([])
            longest = lengths[index]
        found[-1].append(index)
    generator.shuffle(found)
    return found
