"""Loops are found, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asr.search.greedy import repetition


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), max_size=10))
def test_a_pattern_said_again_and_again_is_a_loop(pattern: list[int], before: list[int]) -> None:
    tokens = before + pattern * 12
    excess = repetition(tokens)
    assert excess > 0
    assert tokens[: len(tokens) - excess][-1] == tokens[-1]


@given(st.integers(1, 60))
def test_text_without_repetition_is_no_loop(length: int) -> None:
    assert repetition(list(range(length))) == 0
    assert repetition([*range(length), 7, 7, 7]) == 0
