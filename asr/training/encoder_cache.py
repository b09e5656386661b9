"""What a frozen encoder says of each utterance, computed once and kept on disk.

An encoder that is not trained says the same in every epoch, and is most of the work where the decoders are small.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.corpora.batches import Batch
from asr.model.recognizer import Encoded, Recognizer


class EncoderCache:
    """A folder of encoded utterances in float16, by id; another encoder's are never read.

    Args:
        folder: made if needed; 100 hours of 384 features, 50 a second, are 14 GB.
        model: whose encoder is frozen.
    """

    def __init__(self, folder: Path, model: Recognizer) -> None:
        self._model = model
        self._folder = folder / _fingerprint(model)
        self._folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def encode(self, batch: Batch, device: torch.device) -> Encoded:
        """The encoder's output of a batch, each utterance encoded alone the first time it comes."""
        training = self._model.encoder.training
        self._model.encoder.eval()
        try:
            rows = [self._row(batch, row, device) for row in range(len(batch.ids))]
        finally:
            self._model.encoder.train(training)
        lengths = torch.tensor([len(values) for values in rows], device=device)
        return Encoded(pad_sequence(rows, batch_first=True).to(device, torch.float32), lengths)

    def _row(self, batch: Batch, row: int, device: torch.device) -> Tensor:
        name = hashlib.blake2b(batch.ids[row].encode(), digest_size=16).hexdigest()
        path = self._folder / f"{name}.npy"
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError):
            pass  # not there, or not whole
        length = batch.lengths[row : row + 1].to(device)
        with torch.autocast(device.type, enabled=False):
            encoded = self._model.encode(batch.waveforms[row : row + 1, : int(length)].to(device), length)
        values = encoded.values[0].half().cpu()
        # A reader, of another process too, finds a whole file or none.
        temporary = path.with_name(f".{name}-{os.getpid()}.npy")
        np.save(temporary, values.numpy())
        temporary.replace(path)
        return values


def _fingerprint(model: Recognizer) -> str:
    settings = model.configuration
    digest = hashlib.blake2b(digest_size=8)
    digest.update(settings.front_end.model_dump_json().encode() + settings.encoder.model_dump_json().encode())
    for part in (model.front_end, model.encoder):
        for name, value in part.state_dict().items():
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
