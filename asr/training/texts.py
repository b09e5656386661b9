"""Plain text that language models are made of."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.exceptions import TrainingError


def lines(texts: Sequence[Path]) -> Iterator[str]:
    """Lines of UTF-8 files, plain or ``.gz``, without the white space around them.

    Raises:
        TrainingError: a file cannot be read.
    """
    for path in texts:
        try:
            opener = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rt", encoding="utf-8") as file:
                yield from (line.strip() for line in file)
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise TrainingError(f"{path}: cannot be read as UTF-8 text ({error}); give plain text or .gz.") from error
