"""What a beam search asks beside the decoder: the CTC prefix score, language models, phrases."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class PrefixScorer(Protocol):
    """Scores what may come next after each of many texts, which grow token by token.

    Attributes:
        gain: the most that a token can add to a score; 0 for logarithms of probabilities.
    """

    gain: float

    def score(self, candidates: Tensor) -> Tensor:
        """What each candidate adds to its text's score.

        Args:
            candidates: int64 (rows, candidates), tokens; the stop token ends the text.

        Returns:
            float64 (rows, candidates).
        """

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with the texts ``rows``, int64 (new rows,), each followed by one of ``tokens``, int64 (new rows,).

        A CTC beam search gives -1 in place of a token for a text that stays as it is.
        """
