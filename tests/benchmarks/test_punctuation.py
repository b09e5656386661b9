"""How well zh's punctuation model restores the marks of print that it has not read.

``pytest tests/benchmarks/test_punctuation.py -s -o addopts= --timeout 3600 --texts inews.txt,people.txt,reviews.txt`` holds out
the lines that ``recipes/mandarin/punctuation.yaml`` does, without those that stand elsewhere in the texts, and prints a table.
``--model`` names a folder of ``asr train-punctuation`` instead of zh's.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr import pretrained
from asr.model import punctuation
from asr.text.punctuation import passages
from asr.training.punctuation import agreement, figures
from asr.training.texts import lines

HELD_OUT = 200
LONG = 320


def test_marks_of_print(pytestconfig: pytest.Config) -> None:
    if not (names := pytestconfig.getoption("--texts")):
        pytest.skip("needs printed text: name it with --texts")
    torch.set_num_threads(1)
    name = pytestconfig.getoption("--model")
    punctuator = punctuation.load(pretrained.find("zh") / "punctuation" if name == "en" else Path(name))
    texts = [line for line in lines([Path(each) for each in names.split(",")]) if line]
    read = {line for place, line in enumerate(texts, start=1) if place % HELD_OUT}
    held_out = [line for line in texts[HELD_OUT - 1 :: HELD_OUT] if line not in read]
    whole = (each for number, text in enumerate(held_out) for each in passages(text, 10 * LONG, (1, number)))
    long = [each for each in whole if len(each) > LONG]
    print(f"\n{len(held_out)} paragraphs, {sum(map(len, held_out)):,} characters")
    print("| mark | printed | precision | recall | F1 |\n|---|---|---|---|---|")
    found = figures(punctuator, held_out)
    for mark, each in found.items():
        print(f"| {mark} | {each.printed} | {each.precision:.2f} | {each.recall:.2f} | {each.f1:.2f} |")
    print(f"{len(long)} passages of more than {LONG} characters, read as a whole: F1 {agreement(punctuator, long)['all'].f1:.2f}")
    assert found["all"].printed
