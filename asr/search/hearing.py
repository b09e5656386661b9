"""What CTC heard of an utterance, to judge what the decoder says: whether there is speech, and what is repeated."""

from __future__ import annotations

from collections.abc import Sequence

from asr.search.hypothesis import Hypothesis
from asr.text.tokenizer import Tokenizer

# CTC says that there is speech where it has so many tokens, each with so much probability on the average.
_FEWEST_TOKENS = 3
_LOG_PROBABILITY = -0.7


class Hearing:
    """CTC's best path of one utterance.

    Args:
        best: the path's hypothesis.
        tokenizer: of the decoder, whose patterns are looked for.
        ctc_tokenizer: of the CTC head.
    """

    def __init__(self, best: Hypothesis, tokenizer: Tokenizer, ctc_tokenizer: Tokenizer) -> None:
        self.best = best
        self._tokenizer = tokenizer
        self._ctc_tokenizer = ctc_tokenizer
        self._text = self._written(best.text)

    def repeats(self, pattern: Sequence[int]) -> int:
        """How many times in a row the decoder's tokens ``pattern`` stand in CTC's text."""
        written = self._written(self._tokenizer.decode(pattern))
        if not written:
            return 0
        count = 0
        while written * (count + 1) in self._text:
            count += 1
        return count

    def has_speech(self) -> bool:
        """Whether CTC is sure enough of some text."""
        values = self.best.log_probabilities
        return bool(self._text) and len(values) >= _FEWEST_TOKENS and sum(values) / len(values) >= _LOG_PROBABILITY

    def _written(self, text: str) -> str:
        """Text as CTC writes it, without spaces: where a pattern begins is not known."""
        return self._ctc_tokenizer.decode(self._ctc_tokenizer.encode(text)).replace(" ", "")
