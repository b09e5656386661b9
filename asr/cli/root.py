"""The application that the sub-commands are added to, and the choices that several of them share."""

from __future__ import annotations

from enum import Enum

import typer

app = typer.Typer(
    name="asr",
    help="Speech recognition: transcribe audio files, train on recipes, score word error rates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class DeviceChoice(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionChoice(str, Enum):
    """Arithmetic of the linear layers."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


@app.callback()
def root() -> None:
    """Speech recognition: transcribe audio files, train on recipes, score word error rates."""
