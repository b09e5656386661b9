"""What ``--phrases`` does for rare words: those of dev-extra's texts that no text of the training part has.

``pytest tests/benchmarks/test_phrases.py -s -o addopts= --timeout 3600 --utterances 124`` prints a table. All rare words of all
utterances of dev-extra are one list (Le et al. 2021, "Contextualized streaming end-to-end speech recognition with trie-based
deep biasing and shallow fusion", section 4.1, give each utterance its own words and others), so each utterance has hundreds
that are not said in it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import asr
from asr.audio import files
from asr.scoring.alignment import align
from asr.scoring.errors import count
from asr.search.options import DecodingOptions
from asr.search.phrases import Phrases
from asr.text.english import normalize

BATCH = 16


def test_phrases(corpora: Path, pytestconfig: pytest.Config) -> None:
    torch.set_num_threads(1)
    rows = [line.split("\t") for line in (corpora / "manifest.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    known = {word for path, *_, text in rows if path.startswith("LibriSpeech/train") for word in normalize(text).split()}
    dev = [row for row in rows if row[0].startswith("LibriSpeech/dev-extra/")]
    rare = {word for *_, text in dev for word in normalize(text).split() if word not in known}
    # A name is written with a capital, another word mostly without.
    written = sorted(rare | {word.capitalize() for word in rare})
    wanted = np.linspace(0, len(dev) - 1, pytestconfig.getoption("--utterances")).round().astype(int)
    chosen = sorted((dev[place] for place in wanted), key=lambda row: float(row[1]))
    references = {path: normalize(text) for path, *_, text in chosen}
    said = Counter(word for text in references.values() for word in text.split() if word in rare)
    model = pytestconfig.getoption("--model")
    print(f"\n{len(chosen)} utterances, {said.total()} of their words rare; the list has {len(rare)}")
    print("| bonus a token | WER | rare words right | rare words written that were not said |")
    print("|---|---|---|---|")
    for bonus in (0.0, 0.5, 1.0, 2.0, 3.0):
        options = DecodingOptions(beam_size=5, phrases=Phrases(written, bonus) if bonus else None)
        transcriber = asr.load(model, "cpu", options)
        texts: dict[str, str] = {}
        for first in range(0, len(chosen), BATCH):
            part = chosen[first : first + BATCH]
            found = transcriber.decode([files.read(corpora / path) for path, *_ in part])
            texts.update((row[0], normalize(each.text)) for row, each in zip(part, found, strict=True))
        right = false = 0
        for path, reference in references.items():
            for mark, there, heard in align(reference.split(), texts[path].split()).pairs():
                right += mark == "C" and there in rare
                false += mark != "C" and heard in rare
        score = count(references, texts)
        print(f"| {bonus:g} | {100 * score.rate:.2f} % | {right} of {said.total()} | {false} |", flush=True)
        assert right
