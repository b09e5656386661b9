"""The application that the sub-commands are added to, and the choices that several of them share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130  # the exit code

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
    """Arithmetic of the network."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


Device = Annotated[DeviceChoice, typer.Option(help="Where to compute.")]
Precision = Annotated[PrecisionChoice, typer.Option(help="Of the network; int8 is of linear layers; auto: what is fast here.")]


Recipe = Annotated[Path, typer.Argument(help="Recipe, a YAML file.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value in place of the recipe's values.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")]


def precision_for(precision: PrecisionChoice, device: DeviceChoice) -> str:
    """The name of the precision; one that does not pay on the device is said so on stderr."""
    if precision is PrecisionChoice.bfloat16:
        from asr.model.device import choose_device, slow_bfloat16

        if message := slow_bfloat16(precision.value, choose_device(device.value)):
            print(f"asr: --precision bfloat16: {message}", file=sys.stderr)
    return precision.value


@contextmanager
def imports() -> Iterator[None]:
    """Around the imports of a command that should answer soon.

    They make a quarter of a million objects that stay. To search them for garbage, again and again meanwhile and once more
    at the exit, was a seventh of what it takes to transcribe a sentence.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@app.callback()
def root() -> None:
    """Speech recognition: transcribe audio files, train on recipes, score word error rates."""
