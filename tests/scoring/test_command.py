"""``asr score`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def asr(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asr", "score", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ref").write_text("s1-a the cat sat\ns1-b hello world\ns2-a x y\n")
    (tmp_path / "hyp").write_text("s1-a the cat sit\ns1-b hello\ns2-a x y\n")
    (tmp_path / "better").write_text("s1-a the cat sat\ns1-b hello\ns2-a x y\n")
    (tmp_path / "utt2spk").write_text("s1-a s1\ns1-b s1\ns2-a s2\n")
    return tmp_path


def test_summary_and_every_output(folder: Path) -> None:
    result = asr(
        *("ref", "hyp", "better", "--speakers", "utt2spk", "--alignment", "out/aligned.txt"),
        *("--html", "out/report.html", "--json", "out/report.json", "--unit", "word"),
        folder=folder,
    )
    assert result.returncode == 0, result.stderr
    assert "WER 28.57%" in result.stdout
    assert "WER 14.29%" in result.stdout
    assert "bootstrap over 2 speakers" in result.stdout
    aligned = (folder / "out" / "aligned.txt").read_text()
    assert "REF: the cat sat\nHYP: the cat sit\n             S\n" in aligned
    assert json.loads((folder / "out" / "report.json").read_text())["comparison"]["better"] == 1
    assert (folder / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["aligned.txt", "report.html", "report.json"]


def test_json_on_stdout_is_json_alone(folder: Path) -> None:
    result = asr("ref", "hyp", "--json", "-", folder=folder)
    assert json.loads(result.stdout)["systems"][0]["substitutions"] == 1


def test_bad_input_is_one_sentence_and_exit_code_1(folder: Path) -> None:
    (folder / "latin").write_bytes(b"s1-a caf\xe9\n")
    (folder / "short").write_text("s1-a the cat\n")
    for arguments, message in (
        (("ref", "latin"), "latin, line 1: is not UTF-8"),
        (("ref", "short"), "2 without hypothesis: s1-b, s2-a"),
        (("ref", "."), "is a folder"),
        (("ref", "absent"), "absent: cannot be read"),
        (("ref", "hyp", "--unit", "phone"), "unit 'phone'"),
        (("ref", "hyp", "--normalizer", "greek"), "normaliser 'greek'"),
        (("ref", "hyp", "--alignment-costs", "odd"), "alignment costs 'odd'"),
        (("ref", "hyp", "--html", "."), "is a folder"),
        (("ref", "hyp", "--alignment", "./hyp"), "is an input"),
        (("ref", "hyp", "--html", "x", "--json", "x"), "another output"),
        (("ref", "hyp", "--html", "hyp/x.html"), "cannot be written"),
    ):
        result = asr(*arguments, folder=folder)
        assert result.returncode == 1, arguments
        assert result.stderr.startswith("asr: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_allowed_missing_are_counted(folder: Path) -> None:
    (folder / "short").write_text("s1-a the cat sat\n")
    result = asr("ref", "short", "--allow-missing", folder=folder)
    assert result.returncode == 0
    assert "2 utterances have no hypothesis and were scored as empty" in result.stdout
    assert "WER 57.14%" in result.stdout


def test_chinese_in_words_is_advised_against(folder: Path) -> None:
    (folder / "zh").write_text("s1-a 今天 天气 不错\ns1-b 你好 世界\n", encoding="utf-8")
    assert "--unit char --normalizer mandarin" in asr("zh", "zh", folder=folder).stdout
    assert "--normalizer mandarin drops them" in asr("zh", "zh", "--unit", "char", folder=folder).stdout
    result = asr("zh", "zh", "--unit", "char", "--normalizer", "mandarin", folder=folder)
    assert "note" not in result.stdout
    assert "N 10 " in result.stdout
