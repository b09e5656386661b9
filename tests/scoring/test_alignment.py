"""Alignments against sclite's own, and against a table filled by definition."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.exceptions import ScoringError
from asr.scoring import alignment as alignment_module
from asr.scoring.alignment import ErrorCounts, align, align_all

# Alignments that sclite 2.10 (SCTK 2.4.10) printed for these pairs of letters, one letter a word.
SCLITE = [
    ("eddeebbedf", "badcbaeffa", "SSCDSCSCSCI"),
    ("bbccccacacaa", "bccccacacaa", "DCCCCCCCCCCC"),
    ("cbbabb", "b", "DDDDDC"),
    ("bbfa", "be", "DCDS"),
    ("bcbab", "bcb", "CCDDC"),
    ("feaabbdcaecc", "aaabefb", "DDCCSCDDDCSS"),
    ("bebfbbf", "beaff", "CCSCDDC"),
    ("bbcacaaabccc", "abaacaabbb", "SCSCCDCCCDSS"),
    ("aabcce", "cfc", "DDDCICD"),
    ("bbc", "cba", "SCS"),
    ("bca", "aacabccb", "IIIICICS"),
    ("accbfeb", "acddfbb", "CCSSCSC"),
    ("bbaca", "aaca", "DSCCC"),
    ("dcaaceaffcec", "feafb", "DDDDSCCDCDDS"),
    ("baabaaaca", "baaaaca", "CDCDCCCCC"),
    ("cacccbbcbca", "caccbbccca", "CCDCCCCCSCC"),
]
words = st.lists(st.sampled_from("abcd"), max_size=12)


def least_cost(reference: list[str], hypothesis: list[str], substitution: int, other: int) -> int:
    """The table of R. A. Wagner and M. J. Fischer, 1974, filled cell by cell."""
    row = [other * j for j in range(len(hypothesis) + 1)]
    for i, unit in enumerate(reference, 1):
        above, row = row, [other * i]
        for j, candidate in enumerate(hypothesis, 1):
            diagonal = above[j - 1] + (0 if unit == candidate else substitution)
            row.append(min(diagonal, above[j] + other, row[-1] + other))
    return row[-1]


@pytest.mark.parametrize(("reference", "hypothesis", "marks"), SCLITE)
def test_sclite_costs_give_the_alignment_that_sclite_gives(reference: str, hypothesis: str, marks: str) -> None:
    found = align(list(reference), list(hypothesis), "sclite")
    assert "".join(mark for mark, _, _ in found.pairs()) == marks


def test_sclite_itself_where_it_is_installed(tmp_path: Path) -> None:
    sclite = shutil.which("sclite") or "/usr/lib/sctk/bin/sclite"
    if not Path(sclite).exists():
        pytest.skip("needs sclite (Debian's package sctk)")
    draw = random.Random(5)
    pairs = [[draw.choices("abcde", k=draw.randint(1, 14)) for _ in range(2)] for _ in range(300)]
    for side in range(2):
        lines = [f"{' '.join(pair[side])} (s-{k:04d})\n" for k, pair in enumerate(pairs)]
        (tmp_path / f"{side}.trn").write_text("".join(lines))
    command = [sclite, "-r", "0.trn", "trn", "-h", "1.trn", "trn", "-i", "rm", "-o", "sgml", "stdout"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    theirs = {
        int(number): [entry[0] for entry in path.split(":")]
        for number, path in re.findall(r'<PATH id="\(s-(\d+)\)".*?>\n(.*?)\n</PATH>', output, re.DOTALL)
    }
    ours = align_all([pair[0] for pair in pairs], [pair[1] for pair in pairs], "sclite")
    assert theirs == {k: [mark for mark, _, _ in found.pairs()] for k, found in enumerate(ours)}


@settings(max_examples=200)
@given(words, words)
def test_both_costs_are_least(reference: list[str], hypothesis: list[str]) -> None:
    assert align(reference, hypothesis).counts.errors == least_cost(reference, hypothesis, 1, 1)
    weighted = align(reference, hypothesis, "sclite").counts
    assert 4 * weighted.substitutions + 3 * (weighted.deletions + weighted.insertions) == least_cost(reference, hypothesis, 4, 3)


@settings(max_examples=100)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), st.sampled_from(["levenshtein", "sclite"]))
def test_pairs_are_aligned_alone_as_together_and_rebuild_their_texts(
    pairs: list[tuple[list[str], list[str]]], costs: str
) -> None:
    together = align_all([r for r, _ in pairs], [h for _, h in pairs], costs)  # type: ignore[arg-type]
    for (reference, hypothesis), found in zip(pairs, together, strict=True):
        assert found == align(reference, hypothesis, costs)  # type: ignore[arg-type]
        assert [ref for _, ref, _ in found.pairs() if ref is not None] == reference
        assert [hyp for _, _, hyp in found.pairs() if hyp is not None] == hypothesis
        assert all((mark == "C") == (ref == hyp) for mark, ref, hyp in found.pairs())


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"), [("", "", 0.0), ("", "a b", 2.0), ("a b", "", 1.0), ("a", "a b c", 2.0)]
)
def test_rates_of_empty_texts_follow_jiwer(reference: str, hypothesis: str, rate: float) -> None:
    import jiwer

    assert align(reference.split(), hypothesis.split()).counts.rate == rate
    assert jiwer.process_words([reference], [hypothesis]).wer == rate


def test_counts_add_up_and_never_average() -> None:
    total = ErrorCounts(8, 1, 1, 0) + ErrorCounts(0, 1, 0, 1)
    assert total == ErrorCounts(8, 2, 1, 1)
    assert (total.reference_length, total.hypothesis_length, total.errors) == (11, 11, 4)
    assert total.rate == 4 / 11


def test_a_long_pair_is_aligned_with_either_costs() -> None:
    draw = random.Random(1)
    reference = draw.choices("abcdefgh", k=4000)
    hypothesis = [unit for unit in reference if draw.random() > 0.1]
    for costs in ("levenshtein", "sclite"):
        counts = align(reference, hypothesis, costs).counts  # type: ignore[arg-type]
        assert (counts.deletions, counts.errors) == (4000 - len(hypothesis), 4000 - len(hypothesis))


def test_what_cannot_be_aligned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScoringError, match="levenshtein or sclite"):
        align(["a"], ["a"], "other")  # type: ignore[arg-type]
    monkeypatch.setattr(alignment_module, "MAXIMUM_CELLS", 20)
    with pytest.raises(ScoringError, match="too long"):
        align(["a"] * 5, ["b"] * 5, "sclite")
