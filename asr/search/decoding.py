"""The one entrance to all searches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from asr.model.recognizer import Encoded, Recognizer
from asr.search.ctc import ctc_greedy_search
from asr.search.greedy import greedy_search
from asr.search.hypothesis import Hypothesis
from asr.search.options import DecodingOptions
from asr.text.tokenizer import Tokenizer


def decode(
    model: Recognizer,
    tokenizer: Tokenizer,
    encoded: Encoded,
    sample_lengths: Sequence[int] | Tensor,
    options: DecodingOptions,
) -> list[Hypothesis]:
    """Search a batch for its texts in the way that ``options`` names.

    Args:
        model: recogniser.
        tokenizer: its tokenizer.
        encoded: the encoder's output.
        sample_lengths: (batch,), samples of each utterance without added silence; they bound the text's length.
        options: the search; what is None in them is the model's choice.

    Returns:
        The best hypothesis of each utterance, in order.

    Raises:
        ConfigurationError: the model has not what the options ask for.
    """
    options = options.resolved(model)
    if options.decoder == "ctc":
        return ctc_greedy_search(model, tokenizer, encoded)
    return greedy_search(model, tokenizer, encoded, sample_lengths, options.prompt)
