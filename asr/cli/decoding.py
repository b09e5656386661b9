"""The options of decoding, which ``asr transcribe`` and ``asr evaluate`` share."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from asr.search.options import DecodingOptions


class DecoderChoice(str, Enum):
    """What writes the text; the names are ``asr.search.options.DecoderName``."""

    autoregressive = "autoregressive"
    ctc = "ctc"


Decoder = Annotated[
    DecoderChoice | None, typer.Option(help="What writes the text; the model's own choice if left out.", show_default=False)
]


def options(decoder: DecoderChoice | None) -> DecodingOptions:
    """The options as one value."""
    from asr.search.options import DecodingOptions

    return DecodingOptions(decoder=decoder.value if decoder else None)
