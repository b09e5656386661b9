"""A draft learns from speech to say what a decoder will say of it: what it hears is what the decoder itself writes.

The decoder writes each utterance once, and what its last cross-attention remembers of it is kept in memory with its states.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr import pretrained
from asr.corpora import manifests
from asr.corpora.batches import BatchLoader, select
from asr.exceptions import TrainingError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.decoder import Decoder
from asr.model.device import choose_device
from asr.model.draft import Draft, Guesser, begin
from asr.model.precision import choose, choose_for_training
from asr.model.recognizer import Encoded
from asr.model.storage import Storage
from asr.search.greedy import greedy_search
from asr.training.schedule import cosine

DEPTH = 3
"""Guesses in a row that are learned from: a guess begins where another has left the state."""
_BATCH_SECONDS = 120
_HELD_OUT = 0.03
_LEARNING_RATE, _WARMUP, _WEIGHT_DECAY, _DROPOUT = 1e-3, 60, 0.05, 0.1


@dataclass(frozen=True)
class Example:
    """An utterance as the decoder wrote it.

    Attributes:
        tokens: int64 (length + 1,), from the last of the prompt to the stop token.
        states: of all but the last of these, (length, width).
        memory: keys and values of the last cross-attention, (heads, positions, head width).
    """

    tokens: Tensor
    states: Tensor
    memory: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Result:
    """What was learned.

    Attributes:
        right: share of utterances' tokens, held out, of which the first, the first two, ... guesses are right.
        utterances: that were learned from.
        seconds: of speech, all of it.
        folder: where the draft is.
    """

    right: tuple[float, ...]
    utterances: int
    seconds: float
    folder: Path


def train(
    model: str,
    data: Sequence[Path],
    output: Path,
    *,
    hours: float = 8.0,
    epochs: int = 6,
    vocabulary: int = 12_288,
    storage: Storage = "int8",
    device: str = "auto",
    seed: int = 1,
    report: Callable[[str], None] | None = None,
) -> Result:
    """Train the draft of a model's decoder and write its folder.

    Args:
        model: embedded model or checkpoint folder.
        data: manifests of speech; their texts are not read.
        output: folder to make.
        hours: of speech at most; an hour takes about half a gigabyte of memory.
        vocabulary: tokens that are guessed, the first.

    Raises:
        TrainingError: the folder holds a model already, the model's decoder is another kind, the folder
            cannot be made, or too little was written.
        CheckpointError, ConfigurationError, CorpusError, AudioError: the model or the data are not valid.
    """
    report = report or (lambda _: None)
    if (output / model_folder.WEIGHTS).exists():
        raise TrainingError(f"{output}: holds a model already; choose another output.")
    device = choose_device(device)
    autocast = choose_for_training("auto", device) == "bfloat16"
    source = pretrained.find(model)
    decoder = model_folder.load(source, device).model.decoder
    if decoder is None or decoder.configuration.norm != "before":
        raise TrainingError(
            f"{model}: has no decoder with norms before its layers' parts, which a draft needs; use another model."
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{output}: cannot be written ({error.strerror}); choose another output.") from error
    torch.manual_seed(seed)
    # It shall know the decoder as it is when it transcribes.
    heard = model_folder.load(source, device, choose("auto", device))
    examples, seconds = _listen(heard, data, hours, seed, report)
    del heard
    random.Random(seed).shuffle(examples)
    held_out = max(1, round(_HELD_OUT * len(examples)))
    if len(examples) < 2:
        raise TrainingError(f"{model}: wrote text of {len(examples)} utterances, which are too few; give more speech.")
    guesser = Guesser(begin(decoder, vocabulary, _DROPOUT).to(device), decoder)
    decoder.requires_grad_(False)
    fit(guesser, examples[held_out:], epochs, seed, autocast, report)
    right = accuracy(guesser, examples[:held_out], autocast)
    result = Result(right, len(examples) - held_out, seconds, output)
    model_folder.save_model(guesser.draft, output, _card(model, data, guesser.draft, result), storage)
    return result


def fit(
    guesser: Guesser,
    examples: Sequence[Example],
    epochs: int,
    seed: int,
    autocast: bool,
    report: Callable[[str], None],
) -> None:
    """Cross-entropy of the tokens that the decoder wrote, through up to ``DEPTH`` guesses."""
    draft, generator = guesser.draft, random.Random(seed)
    optimizer = torch.optim.AdamW(draft.parameters(), _LEARNING_RATE, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY)
    steps = epochs * len(_batches(examples, generator))
    step = 0
    draft.train()
    for epoch in range(epochs):
        total, order = 0.0, _batches(examples, generator)
        for batch in order:
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * cosine(step + 1, _WARMUP, steps)
            loss, _ = losses(guesser, batch, autocast)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
            optimizer.step()
            step += 1
            total += float(loss.detach()) / len(order)
        report(f"epoch {epoch + 1} of {epochs}: {total:.3f} nats a guess")
    draft.eval()


def losses(guesser: Guesser, examples: Sequence[Example], autocast: bool) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of guesses, and of how many places the first, the first two, ... are right, with the places.

    Returns:
        The loss, and int64 (DEPTH + 1,): counts, and the number of places.
    """
    device = next(guesser.draft.parameters()).device
    length = max(len(each.states) for each in examples)
    tokens = torch.full((len(examples), length + DEPTH + 1), -1)
    for row, each in enumerate(examples):
        tokens[row, : len(each.tokens)] = each.tokens
    tokens = tokens.to(device)
    states = nn.utils.rnn.pad_sequence([each.states for each in examples], batch_first=True).to(device).float()
    common = guesser.draft.configuration.vocabulary
    total, count = torch.zeros((), device=device), 0
    right = tokens[:, 2 : 2 + length] >= 0
    found = []
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast):
        kind = torch.bfloat16 if autocast else torch.float32
        memory = [tuple(part.to(device, kind) for part in each.memory) for each in examples]
        for depth in range(DEPTH):
            read, wanted = (tokens[:, first : first + length] for first in (depth + 1, depth + 2))
            states = guesser.draft(states, guesser.decoder.token_embedding(read.clamp(min=0)), memory)
            there = wanted >= 0
            scores = guesser.scores(states[there])
            said = wanted[there]
            known = said < common
            total = total + F.cross_entropy(scores[known], said[known], reduction="sum")
            count += int(known.sum())
            right = right & torch.zeros_like(right).masked_scatter(there, scores.argmax(dim=-1) == said)
            found.append(right.sum())
    places = (tokens[:, 2 : 2 + length] >= 0).sum()
    return total / max(count, 1), torch.stack([*found, places]).cpu()


@torch.no_grad()
def accuracy(guesser: Guesser, examples: Sequence[Example], autocast: bool) -> tuple[float, ...]:
    """Of how many of the tokens after the first the first, the first two, ... guesses are right."""
    counts = torch.stack([losses(guesser, [each], autocast)[1] for each in examples]).sum(dim=0)
    return tuple((counts[:-1] / counts[-1].clamp(min=1)).tolist())


def _batches(examples: Sequence[Example], generator: random.Random) -> list[list[Example]]:
    """Twelve utterances of similar length each, in any order."""
    order = sorted(examples, key=lambda each: len(each.tokens) + 8 * generator.random())
    found = [order[first : first + 12] for first in range(0, len(order), 12)]
    generator.shuffle(found)
    return found


@torch.no_grad()
def _listen(
    checkpoint: Checkpoint, data: Sequence[Path], hours: float, seed: int, report: Callable[[str], None]
) -> tuple[list[Example], float]:
    """Utterances as the decoder writes them, and seconds of speech."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    decoder = cast(Decoder, model.decoder)
    device = next(model.parameters()).device
    prompt = [tokenizer.identifier(token) for token in decoder.configuration.prompt]
    cuts, _ = select(manifests.load_all(data), minimum_seconds=0.1, maximum_seconds=30.0, fits=None)
    loader = BatchLoader(cuts, maximum_seconds=_BATCH_SECONDS, shuffle=True, seed=seed)
    examples: list[Example] = []
    seconds = 0.0
    for count, batch in enumerate(loader.epoch(0)):
        encoded = model.encode(batch.waveforms.to(device), batch.lengths.to(device))
        for row, text in enumerate(greedy_search(model, tokenizer, encoded, batch.lengths)):
            if text.finish_reason != "stop" or not text.tokens:
                continue
            tokens = [*prompt, *text.tokens, tokenizer.stop]
            one = Encoded(encoded.values[row : row + 1, : encoded.lengths[row]], encoded.lengths[row : row + 1])
            cache = decoder.cache()
            states = decoder.states(torch.tensor([tokens[:-1]], device=device), one.values, one.lengths, cache)
            memory = decoder.memory(cache, 0, int(one.lengths))
            first = len(prompt) - 1
            kept = [each.bfloat16().cpu().clone() for each in (states[0, first:], *memory)]
            examples.append(Example(torch.tensor(tokens[first:]), kept[0], (kept[1], kept[2])))
        seconds += float(batch.lengths.sum()) / 16_000
        if count % 20 == 0:
            report(f"{len(examples)} utterances, {seconds / 3600:.2f} h heard")
        if seconds >= 3600 * hours:
            break
    return examples, seconds


def _card(model: str, data: Sequence[Path], draft: Draft, result: Result) -> str:
    parameters = sum(each.numel() for each in draft.parameters())
    shares = ", ".join(f"{100 * share:.1f}" for share in result.right)
    rows = [
        f"# Draft of {Path(model).name}",
        "",
        f"- Guesses what the decoder of {Path(model).name} writes next, and changes no text: `draft` in its `config.yaml`.",
        f"- Trained by `asr train-draft` on what {Path(model).name} wrote of {result.utterances:,} of "
        f"{result.seconds / 3600:.2f} hours of utterances of {', '.join(path.name for path in data)}.",
        f"- Parameters: {parameters:,}, begun as the decoder's last layer; guesses {draft.configuration.vocabulary:,} tokens.",
        f"- On utterances held out the first, the first two, ... guesses are right at {shares} % of the tokens.",
    ]
    return "\n".join(rows) + "\n"
