"""How well the model does on the validation set while it is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from lhotse import CutSet
from torch import Tensor

from asr.corpora import manifests
from asr.corpora.batches import BatchLoader
from asr.exceptions import CorpusError
from asr.model.checkpoint import Checkpoint
from asr.model.recognizer import Encoded
from asr.scoring.errors import align
from asr.search.ctc import ctc_greedy_search
from asr.search.greedy import greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.language import heard_languages, prompt, rows_by_code
from asr.search.mask_predict import mask_predict_search
from asr.text.normalization import of_language
from asr.training.configuration import Recipe
from asr.training.objective import Objective, encoded_targets, moved


@dataclass(frozen=True)
class Validation:
    """Greedy decoding of the validation set.

    ``error_rate`` and ``length_ratio`` are those of the first part that is trained: the autoregressive decoder, the
    non-autoregressive one, CTC. That of a part that is not there is not a number.
    """

    epoch: int
    step: int
    loss: float
    error_rate: float
    ctc_error_rate: float
    nonautoregressive_error_rate: float
    length_ratio: float
    seconds: float


def validation_loader(recipe: Recipe, accelerator: Accelerator) -> BatchLoader:
    """This rank's share of the validation set, in a fixed order."""
    cuts = manifests.load_all(recipe.data.validation)
    if not len(cuts):
        raise CorpusError(f"recipe {recipe.name}: data.validation holds no utterance; prepare it first.")
    if recipe.data.validation_utterances:
        order = np.random.default_rng(0).permutation(len(cuts))[: recipe.data.validation_utterances]
        chosen = list(cuts)
        cuts = CutSet.from_cuts(chosen[index] for index in sorted(order))
    return BatchLoader(
        cuts,
        maximum_seconds=recipe.data.batch_seconds,
        shuffle=False,
        seed=0,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )


@torch.no_grad()
def validate(
    objective: Objective, checkpoint: Checkpoint, loader: BatchLoader, accelerator: Accelerator, epoch: int, step: int
) -> Validation:
    """Loss and greedy error rate on the validation set, which the ranks share among them."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    language = checkpoint.model.configuration.language
    known = heard_languages(model.configuration, tokenizer)
    objective.eval()
    began = time.monotonic()
    rows: list[tuple[str, float, int, dict[str, tuple[int, int]]]] = []
    for batch in loader.epoch(0):
        wanted = encoded_targets(checkpoint, batch.texts, batch.lengths, None, languages=batch.languages)
        waveforms, lengths = batch.waveforms.to(accelerator.device), batch.lengths.to(accelerator.device)
        found: dict[str, list[Hypothesis]] = {}
        codes = [code if code in known else "" for code in batch.languages]
        with accelerator.autocast():
            encoded = model.encode(waveforms, lengths)
            losses = objective.losses(encoded, moved(wanted, accelerator.device))
            if model.decoder is not None:
                found["decoder"] = _written(checkpoint, encoded, batch.lengths, codes)
            if model.nonautoregressive is not None:
                found["nonautoregressive"] = mask_predict_search(model, tokenizer, encoded, batch.lengths)
            if model.ctc is not None:
                found["ctc"] = ctc_greedy_search(model, checkpoint.ctc_tokenizer, encoded)
        for index, (utterance, text) in enumerate(zip(batch.ids, batch.texts, strict=True)):
            # What is written as training writes it is compared as scoring compares it.
            spoken = codes[index] or language
            normal, words = of_language(spoken), spoken != "zh"
            reference = _units(normal(text), words)
            counts = {}
            for part, hypotheses in found.items():
                units = _units(normal(hypotheses[index].text), words)
                counts[part] = (align(reference, units).counts.errors, len(units))
            rows.append((utterance, float(losses.total), len(reference), counts))
    # Ranks with fewer utterances repeat some, so that none waits; each counts once.
    unique = {row[0]: row for row in gather_object(rows)}.values()
    objective.train()
    total = max(sum(row[2] for row in unique), 1)
    rates = {part: sum(row[3][part][0] for row in unique) / total for part in found}
    trained = [part for part in found if any(each.requires_grad for each in getattr(model, part).parameters())]
    main = next(iter(trained or found))
    return Validation(
        epoch=epoch,
        step=step,
        loss=sum(row[1] for row in unique) / max(len(unique), 1),
        error_rate=rates[main],
        ctc_error_rate=rates.get("ctc", math.nan),
        nonautoregressive_error_rate=rates.get("nonautoregressive", math.nan),
        length_ratio=sum(row[3][main][1] for row in unique) / total,
        seconds=time.monotonic() - began,
    )


def _written(checkpoint: Checkpoint, encoded: Encoded, samples: Tensor, codes: Sequence[str]) -> list[Hypothesis]:
    """The decoder's greedy texts, each in the language of its code, or in the model's own where that is empty."""
    found: dict[int, Hypothesis] = {}
    for code, rows in rows_by_code(codes).items():
        part = Encoded(encoded.values[rows], encoded.lengths[rows])
        start = prompt(checkpoint, code) if code else None
        texts = greedy_search(checkpoint.model, checkpoint.tokenizer, part, samples[rows], start)
        found.update(zip(rows, texts, strict=True))
    return [found[row] for row in range(len(codes))]


def _units(text: str, words: bool) -> list[str]:
    return text.split() if words else list(text.replace(" ", ""))
