"""How long scoring takes: 100,000 pairs of 20 words with the report's tables, beside jiwer alone.

Run with ``pytest tests/benchmarks/test_scoring.py``; figures are printed by pytest-benchmark.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
import textwrap

import jiwer
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from asr.scoring.page import write_page
from asr.scoring.report import build_report

PAIRS = 100_000


@pytest.fixture(scope="module")
def pairs() -> tuple[dict[str, str], dict[str, str]]:
    draw = random.Random(1)
    vocabulary = [f"word{k}" for k in range(10_000)]
    references, hypotheses = {}, {}
    for k in range(PAIRS):
        words = draw.choices(vocabulary, k=20)
        heard = [draw.choice(vocabulary) if draw.random() < 0.08 else w for w in words if draw.random() > 0.03]
        references[f"utterance-{k:06d}"] = " ".join(words)
        hypotheses[f"utterance-{k:06d}"] = " ".join(heard)
    return references, hypotheses


def test_jiwer_alone(benchmark: BenchmarkFixture, pairs: tuple[dict[str, str], dict[str, str]]) -> None:
    texts = [list(side.values()) for side in pairs]
    benchmark.pedantic(lambda: jiwer.process_words(*texts), rounds=3)


@pytest.mark.parametrize("costs", ["levenshtein", "sclite"])
def test_report_with_tables_and_page(
    benchmark: BenchmarkFixture, pairs: tuple[dict[str, str], dict[str, str]], costs: str
) -> None:
    references, hypotheses = pairs
    speakers = {name: name[:12] for name in references}

    def whole() -> None:
        report = build_report(references, {"system": hypotheses}, speakers=speakers, shown=2000, costs=costs)  # type: ignore[arg-type]
        write_page(io.StringIO(), report, {})

    benchmark.pedantic(whole, rounds=3)


def test_two_systems(benchmark: BenchmarkFixture, pairs: tuple[dict[str, str], dict[str, str]]) -> None:
    references, hypotheses = pairs
    systems = {"first": hypotheses, "second": dict(zip(references, reversed(hypotheses.values()), strict=True))}
    benchmark.pedantic(lambda: build_report(references, systems), rounds=1)


@pytest.mark.parametrize("name", ["basic", "english", "mandarin"])
def test_normaliser(benchmark: BenchmarkFixture, pairs: tuple[dict[str, str], dict[str, str]], name: str) -> None:
    references = dict(list(pairs[0].items())[:2000])
    benchmark.pedantic(lambda: build_report(references, {"system": references}, normalizer=name), rounds=3)


MEMORY = textwrap.dedent(
    """
    import re, sys
    from pathlib import Path
    from asr.scoring.report import build_report

    def peak():
        # Not getrusage: its peak is that of the parent where the parent was larger.
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

    def texts(change):
        return {
            f"u{k:07d}": " ".join(f"w{(k * 31 + j * 17 + change * ((k + j) % 10 == 0)) % 20011}" for j in range(20))
            for k in range(int(sys.argv[1]))
        }

    references, hypotheses = texts(0), texts(1)
    before = peak()
    report = build_report(references, {"system": hypotheses}, shown=2000)
    print(before, peak(), report.systems[0].score.rate)
    """
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("utterances", [100_000, 1_000_000])
def test_memory(utterances: int) -> None:
    """Peak memory in MB: with the texts alone, and after scoring."""
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, str(utterances)], capture_output=True, text=True, check=True
    ).stdout.split()
    print(f"\n{utterances:,} utterances: texts {output[0]} MB, scoring {output[1]} MB, rate {output[2]}")
