from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import hsk, manifests
from asr.exceptions import CorpusError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "hsk-words"
    (folder / "audio").mkdir(parents=True)
    for number in range(3):
        soundfile.write(folder / "audio" / f"hsk{number}.flac", np.zeros(1600 * (number + 1)), 16_000)
    (folder / "text").write_text("hsk0 一\nhsk1 从_到_\nhsk2 机器\n", encoding="utf-8")
    return folder


def test_words_become_a_manifest_and_patterns_are_counted(corpus: Path, tmp_path: Path) -> None:
    preparation = hsk.prepare(corpus, tmp_path / "out")
    cuts = manifests.load(tmp_path / "out" / "train.jsonl.gz")
    assert {cut.id: cut.supervisions[0].text for cut in cuts} == {"hsk0": "一", "hsk2": "机器"}
    assert {cut.supervisions[0].speaker for cut in cuts} == {hsk.SPEAKER}
    assert preparation.subsets[0].warnings == ("1 patterns with gaps are left out.",)


def test_what_does_not_fit_is_named(corpus: Path, tmp_path: Path) -> None:
    (corpus / "audio" / "hsk2.flac").unlink()
    with pytest.raises(CorpusError, match="hsk2"):
        hsk.prepare(corpus, tmp_path / "out")
    (corpus / "text").write_text("hsk0\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="text, line 1"):
        hsk.prepare(corpus, tmp_path / "out")
    with pytest.raises(CorpusError, match="cannot be read"):
        hsk.prepare(tmp_path, tmp_path / "out")
