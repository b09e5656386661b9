"""The room of the embedded models: a checkpoint folder each with its card, and where to find them by name."""

from __future__ import annotations

from pathlib import Path

import yaml

from asr.exceptions import CheckpointError

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """Names of the embedded models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.yaml"))


def languages() -> dict[str, str]:
    """Name of the embedded model of each language, English first; ``zh`` is of Mandarin."""
    found: dict[str, str] = {}
    for name in names():
        configuration = yaml.safe_load((FOLDER / name / "config.yaml").read_text(encoding="utf-8"))
        # A model that is named as its language comes before others of that language.
        if configuration.get("language") == name or configuration.get("language") not in found:
            found[str(configuration.get("language"))] = name
    return dict(sorted(found.items()))


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
