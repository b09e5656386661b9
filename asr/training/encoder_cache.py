"""What the frozen layers of an encoder say of each utterance, computed once and kept on disk.

Layers that are not trained, from the features up, say the same in every epoch. They are most of the work where the
decoders are small.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.corpora.batches import Batch
from asr.exceptions import TrainingError
from asr.model.recognizer import Recognizer


@dataclass(frozen=True)
class Lower:
    """What the frozen layers say of a batch: what ``Encoder.upper`` reads, and how many layers that is from.

    ``values`` (batch, positions, width), ``lengths`` int64 (batch,).
    """

    values: Tensor
    lengths: Tensor
    layers: int

    def to(self, device: torch.device) -> Lower:
        """The same on another device."""
        return Lower(self.values.to(device), self.lengths.to(device), self.layers)


class EncoderCache:
    """A folder of what an encoder's lower layers say of utterances, in float16, by id; another encoder's are never read.

    Args:
        folder: made if needed; 100 hours of 384 features, 50 a second, are 14 GB.
        model: whose encoder's stem, and all the layers up to the first that has gradients, are frozen.

    Raises:
        TrainingError: the stem is trained.
    """

    def __init__(self, folder: Path, model: Recognizer) -> None:
        if any(each.requires_grad for each in model.encoder.stem.parameters()):
            raise TrainingError("training.encoder_cache: encoder.stem is trained; take it out of training.learning_rates.")
        self._model = model
        self.layers = frozen_layers(model)
        self._folder = folder / fingerprint(model, self.layers)
        self._folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def read(self, batch: Batch, device: torch.device) -> Lower:
        """What the lower layers say of a batch, each utterance computed alone the first time it comes."""
        training = self._model.encoder.training
        self._model.encoder.eval()
        try:
            rows = [self._row(batch, row, device) for row in range(len(batch.ids))]
        finally:
            self._model.encoder.train(training)
        lengths = torch.tensor([len(values) for values in rows], device=device)
        return Lower(pad_sequence(rows, batch_first=True).to(device, torch.float32), lengths, self.layers)

    def _row(self, batch: Batch, row: int, device: torch.device) -> Tensor:
        name = hashlib.blake2b(batch.ids[row].encode(), digest_size=16).hexdigest()
        path = self._folder / f"{name}.npy"
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError):
            pass  # not there, or not whole
        length = batch.lengths[row : row + 1].to(device)
        with torch.autocast(device.type, enabled=False):
            features = self._model.features(batch.waveforms[row : row + 1, : int(length)].to(device), length)
            hidden, _ = self._model.encoder.lower(*features, self.layers)
        values = hidden[0].half().cpu()
        # A reader, of another process too, finds a whole file or none.
        temporary = path.with_name(f".{name}-{os.getpid()}.npy")
        np.save(temporary, values.numpy())
        temporary.replace(path)
        return values


def frozen_layers(model: Recognizer) -> int:
    """How many of the encoder's layers, from the features up, have no gradients."""
    trained = [
        index for index, layer in enumerate(model.encoder.layers) if any(each.requires_grad for each in layer.parameters())
    ]
    return min(trained, default=len(model.encoder.layers))


def fingerprint(model: Recognizer, layers: int) -> str:
    """Digest of the front end and the encoder up to so many layers: all that decides what they say of a sound."""
    settings = model.configuration
    digest = hashlib.blake2b(digest_size=8)
    # How many layers there are above them, and what is dropped in training, changes nothing.
    encoder = settings.encoder.model_dump_json(exclude={"layers", "dropout"})
    digest.update(settings.front_end.model_dump_json().encode() + encoder.encode())
    digest.update(str(layers).encode())
    for part in (model.front_end, model.encoder.stem, model.encoder.layers[:layers]):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
