"""A run's ``log.jsonl``: a line for each step and validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asr.exceptions import TrainingError


def append(path: Path, entry: Any) -> None:
    """Add a step or validation, a dataclass, as a line.

    Raises:
        TrainingError: the disk is full or cannot be written to.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": type(entry).__name__.lower(), **asdict(entry)}) + "\n")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error.strerror}); make room and go on with --resume.") from error


def truncate(path: Path, step: int) -> None:
    """Forget what an interrupted run logged after its last checkpoint: it is done again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            break  # the line that was being written when the run was killed
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
