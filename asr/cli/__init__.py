"""One command, ``asr``, with sub-commands. The only package that prints or parses arguments; a module for each room.

Heavy imports stay inside the commands, so that ``asr --help`` answers at once.
"""

from __future__ import annotations

import os
import sys

from asr.cli import corpora, explanation, language_models, listening, models, scoring, synthesis, training, transcription
from asr.cli.root import app
from asr.exceptions import AsrError

__all__ = [
    "app",
    "corpora",
    "explanation",
    "language_models",
    "listening",
    "main",
    "models",
    "scoring",
    "synthesis",
    "training",
    "transcription",
]


def main() -> None:
    """Run the command line; a failure that a user can meet is one sentence on stderr and exit code 1."""
    # OpenMP's threads turn in circles while they wait for each other, hundreds of times in a sentence. Where a processor has
    # something else to do, too, that keeps off the very thread that is waited for: transcribing took six times as long.
    # Asleep they wake an eighth later on idle processors, and a quarter of the processors' time is saved.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except AsrError as error:
        print(f"asr: {error}", file=sys.stderr)
        sys.exit(1)
