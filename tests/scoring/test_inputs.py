"""Every format gives the same texts, and what is wrong is named with file and line."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from asr.exceptions import ScoringError
from asr.scoring.errors import count
from asr.scoring.inputs import read_all, read_speakers, recognise

TEXTS = {"spk1-u1": "the cat sat", "spk1-u2": "", "spk2-u1": 'say "a, b" 你好'}

FORMATS = {
    "kaldi": 'spk1-u1 the cat sat\nspk1-u2\nspk2-u1 say "a, b" 你好\n',
    "trn": 'the cat sat (spk1-u1)\n(spk1-u2)\nsay "a, b" 你好 (spk2-u1)\n',
    "csv": 'utterance,text\nspk1-u1,the cat sat\nspk1-u2,\nspk2-u1,"say ""a, b"" 你好"\n',
    "tsv": 'id\ttext\nspk1-u1\tthe cat sat\nspk1-u2\t\nspk2-u1\t"say ""a, b"" 你好"\n',
    "jsonl": '{"utt": "spk1-u1", "text": "the cat sat"}\n{"utt": "spk1-u2", "text": ""}\n'
    '{"utt": "spk2-u1", "text": "say \\"a, b\\" 你好"}\n',
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("form", ["plain", "mark", "windows", "no last line end"])
def test_every_format_gives_the_same_texts(tmp_path: Path, kind: str, form: str) -> None:
    content = FORMATS[kind].encode("utf-8")
    if form == "mark":
        content = b"\xef\xbb\xbf" + content
    elif form == "windows":
        content = content.replace(b"\n", b"\r\n")
    elif form == "no last line end":
        content = content.rstrip(b"\n")
    # The ending names table formats; Kaldi and trn are recognised by content.
    path = written(tmp_path, f"file.{kind}" if kind in ("csv", "tsv", "jsonl") else "file", content)
    reference, hypothesis = read_all(path, [path])
    assert reference.texts == TEXTS
    assert (reference.format, hypothesis) == (kind, reference)


def test_formats_can_be_mixed_and_tabs_part_kaldi_fields(tmp_path: Path) -> None:
    reference = written(tmp_path, "ref.csv", FORMATS["csv"])
    hypothesis = written(tmp_path, "hyp", FORMATS["kaldi"].replace("u1 ", "u1\t"))
    texts = read_all(reference, [hypothesis])
    assert texts[0].texts == texts[1].texts


def test_plain_texts_go_line_by_line(tmp_path: Path) -> None:
    reference = written(tmp_path, "ref.txt", "the cat\n\nsat\u2028down\n")
    hypothesis = written(tmp_path, "hyp.txt", "the hat\r\n\r\nsat down")
    texts = read_all(reference, [hypothesis])
    assert [text.format for text in texts] == ["plain", "plain"]
    assert list(texts[1].texts.values()) == ["the hat", "", "sat down"]
    assert count(texts[0].texts, texts[1].texts).total.errors == 1
    short = written(tmp_path, "short.txt", "the hat\n")
    with pytest.raises(ScoringError, match=r"short\.txt: has 1 lines, .*ref\.txt has 3"):
        read_all(reference, [short])


def test_a_format_can_be_said(tmp_path: Path) -> None:
    path = written(tmp_path, "odd.txt", "a hello\nb world\n")
    assert recognise(path) == "plain"
    assert read_all(path, [path], "kaldi", "kaldi")[0].texts == {"a": "hello", "b": "world"}
    with pytest.raises(ScoringError, match="name both formats"):
        read_all(path, [path], "plain", "kaldi")
    with pytest.raises(ScoringError, match="choose auto or one of"):
        read_all(path, [path], "docx", "docx")


def test_an_empty_hypothesis_file_has_the_references_format(tmp_path: Path) -> None:
    reference = written(tmp_path, "ref", FORMATS["kaldi"])
    texts = read_all(reference, [written(tmp_path, "hyp", "")])
    assert texts[1].texts == {}
    assert texts[1].format == "kaldi"


STM = """;; a comment
talk 1 anna 0.00 2.00 <o,f0,female> a b c
talk 1 ben 3.00 5.00 d e f
talk 1 noise 5.00 6.00 ignore_time_segment_in_scoring
talk 1 anna 7.00 9.00 g h
"""
CTM = """talk 1 0.1 0.2 a 0.99
talk 1 0.5 0.2 b
talk 1 1.0 0.2 c
talk 1 2.3 0.2 x
talk 1 3.1 0.2 d
talk 1 3.5 0.2 e
talk 1 5.4 0.4 y
talk 1 7.5 0.2 g
talk 1 8.0 0.2 h
talk 1 9.5 0.2 z
"""


def test_ctm_words_go_into_stm_segments(tmp_path: Path) -> None:
    reference, hypothesis = read_all(written(tmp_path, "r.stm", STM), [written(tmp_path, "h.ctm", CTM)])
    assert list(reference.texts.values()) == ["a b c", "d e f", "g h"]
    assert list(reference.speakers.values()) == ["anna", "ben", "anna"]
    assert list(hypothesis.texts.values()) == ["a b c", "x d e", "g h z"]
    assert "2 words lie outside" in hypothesis.note
    assert "1 words lie in segments to be ignored" in hypothesis.note


def test_sclite_puts_words_into_the_same_segments(tmp_path: Path) -> None:
    sclite = shutil.which("sclite") or "/usr/lib/sctk/bin/sclite"
    if not Path(sclite).exists():
        pytest.skip("needs sclite (Debian's package sctk)")
    reference, hypothesis = written(tmp_path, "r.stm", STM), written(tmp_path, "h.ctm", CTM)
    command = [sclite, "-r", str(reference), "stm", "-h", str(hypothesis), "ctm", "-o", "pralign", "stdout"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    theirs = [line[5:].lower().replace("*", "").split() for line in output.splitlines() if line.startswith("HYP:")]
    ours = [text.split() for text in read_all(reference, [hypothesis])[1].texts.values()]
    assert sorted(theirs) == sorted(ours)


def test_ctm_alone_is_one_text_a_recording(tmp_path: Path) -> None:
    path = written(tmp_path, "h.ctm", "b 1 0 1 two\na 1 5 1 y\na 1 0 1 x\n")
    assert read_all(path, [path])[0].texts == {"a_1": "x y", "b_1": "two"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", b"utt-1 caf\xe9\n", r"text, line 1: is not UTF-8 \(byte 0xe9 at 10\)"),
        ("text", "utt-1 a\n".encode("utf-16"), "is UTF-16"),
        ("text", b"utt-1 a\nutt-2 \x00\n", "line 2: holds a zero byte"),
        ("text", b"utt-1 a\nutt-2 b\nutt-1 c\n", r"more than once: utt-1 \(line 3\)"),
        ("a.trn", b"hello (u-1)\nworld\n", "line 2: does not end in"),
        ("a.trn", b"hello (u 1)\n", "line 1: utterance name 'u 1' holds a space"),
        ("a.trn", b"{ a / b } (u-1)\n", "line 1: holds alternatives"),
        ("a.csv", b"name,words2\nu,a\n", "line 1: has no column named utterance"),
        ("a.csv", b"id,text\nu,a,b\n", "line 2: has 3 fields, the header has 2"),
        ("a.csv", b'id,text\nu,"a\n', "line 2: is not valid csv"),
        ("a.csv", b"", "line 1: has no column"),
        ("a.jsonl", b'{"id": "u", "text": "a"}\n{"id"\n', "line 2: is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: is not a JSON object"),
        ("a.jsonl", b'{"text": "a"}\n', "line 1: has not an utterance"),
        ("a.jsonl", b'{"id": "u", "text": 5}\n', "line 1: has not a text"),
        ("a.jsonl", b'{"id": "u 1", "text": "a"}\n', "holds a space"),
        ("a.jsonl", b'{"id": "u", "text": "\\ud800"}\n', "line 1: holds half a character"),
        ("a.stm", b"f 1 s 0\n", "line 1: has 4 fields"),
        ("a.stm", b"f 1 s 2 1 a\n", "line 1: ends before it starts"),
        ("a.stm", b"f 1 s 0 1 a\nf 1 s 0 1 b\n", "line 2: is the segment"),
        ("a.ctm", b"f 1 0 x a\n", "line 1: 'x' is not a time"),
        ("a.ctm", b"f 1 0 nan a\n", "line 1: 'nan' is not a time"),
    ],
)
def test_bad_input_is_one_sentence_with_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(ScoringError, match=message) as caught:
        read_all(path, [path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path, "ref", FORMATS["kaldi"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    texts = read_all(path, [pipe])
    writer.join()
    assert texts[1].texts == TEXTS


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="is a folder"):
        read_all(tmp_path, [tmp_path])
    with pytest.raises(ScoringError, match="No such file"):
        read_all(tmp_path / "none", [tmp_path / "none"])


def test_words_of_an_unknown_recording_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="recording other, channel 1"):
        read_all(written(tmp_path, "r.stm", STM), [written(tmp_path, "h.ctm", "other 1 0 1 a\n")])
    with pytest.raises(ScoringError, match="needs a CTM or STM"):
        read_all(written(tmp_path, "r.stm", STM), [written(tmp_path, "h.trn", "a (u-1)\n")])


def test_speakers(tmp_path: Path) -> None:
    path = written(tmp_path, "utt2spk", "u1 anna\nu2 ben\nu3 ben\n")
    assert read_speakers(path, ["u1", "u2"]) == {"u1": "anna", "u2": "ben"}
    with pytest.raises(ScoringError, match=r"no speaker for 1 utterances \(u9\)"):
        read_speakers(path, ["u9"])
    with pytest.raises(ScoringError, match="line 1: has 1 fields"):
        read_speakers(written(tmp_path, "bad", "u1\n"), ["u1"])
