"""The options of decoding, which ``asr transcribe`` and ``asr evaluate`` share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asr.search.options import DecodingOptions


class DecoderChoice(str, Enum):
    """What writes the text; the names are ``asr.search.options.DecoderName``."""

    autoregressive = "autoregressive"
    joint = "joint"
    rescoring = "rescoring"
    nonautoregressive = "nonautoregressive"
    ctc = "ctc"
    ctc_beam = "ctc-beam"


class LengthChoice(str, Enum):
    """How the non-autoregressive decoder finds the text's length; the names are ``asr.model.configuration.LengthWay``."""

    predictor = "predictor"
    row = "row"
    ctc = "ctc"
    alignment = "alignment"


Decoder = Annotated[
    DecoderChoice | None, typer.Option(help="What writes the text; the model's own choice if left out.", show_default=False)
]
BeamSize = Annotated[int | None, typer.Option(min=1, help="Texts that are followed at a time; 1 is greedy.", show_default=False)]
CtcWeight = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of CTC in joint and rescoring; less for a CTC head that is worse than the decoder.",
        show_default=False,
    ),
]
LengthBonus = Annotated[float | None, typer.Option(help="Added to the score for each token.", show_default=False)]
LengthNormalization = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Texts are compared by score / length ** this; 1 where a beam stops early.",
        show_default=False,
    ),
]
StopThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="A text may end where the decoder's log-probability of it is this times that of going on; 2 against cut texts.",
        show_default=False,
    ),
]
MinimumLength = Annotated[
    float, typer.Option(min=0, help="Tokens for each position of the encoder before which the decoder cannot end a text.")
]
LanguageModelFile = Annotated[
    str | None,
    typer.Option(
        "--language-model",
        help="Folder of asr train-lm, n-grams of asr train-ngrams, ARPA file or KenLM binary; A,B: the mean of their "
        "probabilities; none: not the model's own either.",
        show_default=False,
    ),
]
LanguageModelWeight = Annotated[
    float | None, typer.Option(min=0, help="What its log-probability is multiplied by.", show_default=False)
]
Iterations = Annotated[int | None, typer.Option(min=1, help="nonautoregressive: passes of the decoder.", show_default=False)]
LengthBy = Annotated[
    LengthChoice | None,
    typer.Option(
        help="nonautoregressive: what says how long the text is; by alignment CTC's text is written anew.", show_default=False
    ),
]
LengthCandidates = Annotated[
    int | None, typer.Option(min=1, help="nonautoregressive, by predictor: lengths that are tried.", show_default=False)
]


LexiconFile = Annotated[
    Path | None,
    typer.Option(
        "--lexicon",
        help="Words that alone may be said, one a line, for ctc-beam; --language-model is of words then.",
        show_default=False,
    ),
]
PhrasesFile = Annotated[
    Path | None, typer.Option("--phrases", help="Words and names that are expected, one a line.", show_default=False)
]
# A long list does harm with more: recipes/librispeech/README.md.
PHRASE_BONUS = 0.5
PhraseBonus = Annotated[float, typer.Option(help="Added to the score for each token of a phrase.")]


def options(
    decoder: DecoderChoice | None,
    language_model: str | None = None,
    phrases: Path | None = None,
    phrase_bonus: float = PHRASE_BONUS,
    lexicon: Path | None = None,
    **values: Any,
) -> DecodingOptions:
    """The options as one value; what is None is left to the model."""
    from asr.search.options import DecodingOptions

    given = {name: value for name, value in values.items() if value is not None}
    if lexicon is not None:
        from asr.search.lexicon import read as read_lexicon

        words = Path(str(language_model)) if language_model not in (None, "none") else None
        given["lexicon"] = read_lexicon(lexicon, words, given.pop("language_model_weight", 1.0), given.pop("length_bonus", 0.0))
        given["language_model_weight"] = 0.0
    elif language_model == "none":
        given["language_model_weight"] = 0.0
    elif language_model is not None:
        from asr.search.language_model import load_mixture

        given["language_model"] = load_mixture(language_model)
    if phrases is not None:
        from asr.search.phrases import Phrases, read

        given["phrases"] = Phrases(read(phrases), phrase_bonus)
    return DecodingOptions(decoder=decoder.value if decoder else None, **given)
