"""Training: seconds of audio a second of one processor, forward, backward and step, in float32 and, where the
processor has units for it, bfloat16.

``pytest tests/benchmarks/test_training.py -s`` prints the table.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from asr import configuration
from asr.audio import files
from asr.audio.augmentation import SpecAugment
from asr.model.device import has_bfloat16_units
from asr.model.recognizer import Recognizer
from asr.training.configuration import Recipe
from asr.training.objective import Objective, targets
from tests.conftest import ROOT

UTTERANCES, SECONDS, CHARACTERS, STEPS = 4, 10, 140, 2


@pytest.mark.parametrize("name", ["librispeech/mini", "librispeech/train-clean-100"])
def test_speed(name: str, data: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = configuration.load(ROOT / "recipes" / f"{name}.yaml", Recipe)
    speech = np.concatenate([files.read(path) for path in sorted((data / "LibriSpeech").rglob("*.flac"))])
    waveforms = torch.from_numpy(np.resize(speech, (UTTERANCES, SECONDS * files.SAMPLE_RATE)).copy())
    lengths = torch.full((UTTERANCES,), waveforms.shape[1])
    # Without units for it, bfloat16 takes minutes and says only that nobody should.
    for precision in (torch.float32, torch.bfloat16) if has_bfloat16_units("cpu") else (torch.float32,):
        torch.manual_seed(0)
        model = Recognizer(recipe.model_configuration(), 32)
        settings = recipe.training
        augment = SpecAugment(recipe.data.augmentation.spec_augment)
        objective = Objective(model, 0, settings.ctc_weight, settings.label_smoothing, augment).train()
        optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate)
        wanted = targets([torch.randint(4, 32, (CHARACTERS,)).tolist() for _ in range(UTTERANCES)], [2], 3, 0)
        spent = []
        for _ in range(1 + STEPS):
            began = time.process_time()
            with torch.autocast("cpu", precision) if precision != torch.float32 else nullcontext():
                losses = objective(waveforms, lengths, wanted, torch.Generator().manual_seed(0))
            losses.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            spent.append(time.process_time() - began)
        speed = UTTERANCES * SECONDS * STEPS / sum(spent[1:])
        parameters = sum(model.parameter_counts().values())
        print(f"\n{name}, {parameters:,} parameters, {str(precision).removeprefix('torch.')}: {speed:.1f} s of audio/s")
    torch.set_num_threads(threads)
