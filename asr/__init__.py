"""Speech recognition with a Transformer: transcribe audio files, train on recipes, score word error rates.

import asr

print(asr.load("en").transcribe("talk.wav").text)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asr.search.options import DecodingOptions
    from asr.transcription.transcriber import Transcriber

__version__ = "0.1.0"


def load(
    name: str | Path = "en",
    device: str = "auto",
    options: DecodingOptions | None = None,
    batch_size: int = 8,
    precision: str = "auto",
    language: str | None = None,
    punctuation: bool = True,
) -> Transcriber:
    """Load an embedded model by name, or a checkpoint folder; see ``asr.transcription.transcriber.load``."""
    from asr.transcription import transcriber

    return transcriber.load(name, device, options, batch_size, precision=precision, language=language, punctuation=punctuation)
