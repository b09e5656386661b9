"""The room of the embedded models: a checkpoint folder each with its card, and where to find them by name."""

from __future__ import annotations

from pathlib import Path

from asr.exceptions import CheckpointError

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """Names of the embedded models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.yaml"))


def find(name: str | Path) -> Path:
    """The checkpoint folder of that path, or of the embedded model of that name.

    Raises:
        CheckpointError: there is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if str(name) not in names():
        raise CheckpointError(
            f"{name}: is neither a checkpoint folder nor an embedded model; embedded are: {', '.join(names())}."
        )
    return FOLDER / str(name)
