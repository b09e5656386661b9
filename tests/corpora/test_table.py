from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.corpora import manifests
from asr.corpora.batches import BatchLoader
from asr.exceptions import CorpusError
from tests.corpora.conftest import Write


@pytest.fixture
def folder(tmp_path: Path, write_audio: Write) -> Path:
    write_audio(tmp_path / "speech" / "a.wav", 0.5)
    write_audio(tmp_path / "speech" / "b.flac", 0.25, rate=8000)
    return tmp_path


def rows(path: Path) -> list[tuple[str, str, str | None, float]]:
    return [(c.id, c.supervisions[0].text, c.supervisions[0].speaker, c.duration) for c in manifests.load(path)]


def test_csv_with_all_columns_and_more(folder: Path) -> None:
    path = folder / "mine.csv"
    path.write_text(
        '\ufeffid,audio,date,text,speaker\none,speech/a.wav,today,"Well, yes",Ann\n'
        f"two,{folder / 'speech' / 'b.flac'},,机器 学习,\n",
        encoding="utf-8",
    )
    assert rows(path) == [("one", "Well, yes", "Ann", 0.5), ("two", "机器 学习", None, 0.25)]


def test_jsonl_without_ids(folder: Path) -> None:
    path = folder / "mine.jsonl"
    path.write_text(
        json.dumps({"audio": "speech/a.wav", "text": " one\n two "})
        + "\n\n"
        + json.dumps({"audio": "speech/b.flac", "text": "x", "speaker": 7})
    )
    assert rows(path) == [("speech/a", "one two", None, 0.5), ("speech/b", "x", "7", 0.25)]


def test_the_language_of_each_utterance_is_kept(folder: Path) -> None:
    path = folder / "mine.csv"
    path.write_text("audio,text,language\nspeech/a.wav,x,zh\nspeech/b.flac,y,\n")
    assert [cut.supervisions[0].language for cut in manifests.load(path)] == ["zh", None]
    batches = BatchLoader(manifests.load(path), maximum_seconds=9, shuffle=False, seed=0).epoch(0)
    assert sorted(batch.languages for batch in batches) == [("",), ("zh",)]


def test_paths_start_from_the_table_not_from_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.csv").write_text("audio,text\nspeech/a.wav,x\n")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    (cut,) = manifests.load("../mine.csv")
    assert Path(cut.recording.sources[0].source).is_absolute()
    assert Path(cut.recording.sources[0].source).samefile(folder / "speech" / "a.wav")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text), min_size=1, max_size=4),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_any_text_comes_back(folder: Path, texts: list[str], kind: str) -> None:
    path = folder / f"any.{kind}"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        if kind == "csv":
            writer = csv.writer(file)
            writer.writerows([["audio", "text", "id"], *(["speech/a.wav", t, i] for i, t in enumerate(texts))])
        else:
            for number, text in enumerate(texts):
                file.write(json.dumps({"audio": "speech/a.wav", "text": text, "id": str(number)}) + "\n")
    assert [row[1] for row in rows(path)] == [" ".join(text.split()) for text in texts]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "audio,words\nspeech/a.wav,x\n", "t.csv, line 1: the header has no column 'text'"),
        ("t.csv", "", "t.csv, line 1: the header has no column 'audio' and 'text'"),
        ("t.csv", "audio,text\n", "t.csv: holds no utterance"),
        ("t.csv", "audio,text\nspeech/a.wav,x\nspeech/b.flac,\n", "t.csv, line 3: has no text"),
        ("t.csv", "audio,text\n,x\n", "t.csv, line 2: has no audio"),
        ("t.csv", "audio,text\nspeech/a.wav\n", "t.csv, line 2: has no text"),
        ("t.csv", "audio,text\nspeech/a.wav,yes, well\n", "t.csv, line 2: has more values than the header"),
        ("t.csv", "audio,text\nspeech/c.wav,x\n", "t.csv, line 2: audio file .*c.wav does not exist"),
        ("t.csv", 'audio,text\nspeech/a.wav,"x" y\n', "t.csv, line 2: is not valid csv"),
        ("t.csv", "audio,text\nspeech/a.wav,x\nspeech/a.wav,y\n", "line 3: id 'speech/a' was used on line 2"),
        ("t.csv", "audio,text\nspeech/t.csv,x\n", "t.csv: 1 audio files cannot be used"),
        ("t.jsonl", "", "t.jsonl: holds no utterance"),
        ("t.jsonl", '\n{"audio": \n', "t.jsonl, line 2: is not valid JSON"),
        ("t.jsonl", "[1]\n", "t.jsonl, line 1: is not a JSON object"),
        ("t.jsonl", '{"audio": "speech/a.wav", "text": 3}\n', "t.jsonl, line 1: 'text' is not a string"),
        ("t.jsonl", '{"audio": "speech/a.wav", "text": null}\n', "t.jsonl, line 1: has no text"),
        ("t.jsonl", b'{"audio": "\xff"}\n', "t.jsonl: is not UTF-8"),
    ],
)
def test_a_bad_row_is_named(folder: Path, name: str, content: str | bytes, message: str) -> None:
    (folder / "speech" / "t.csv").write_text("not audio")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=message):
        manifests.load(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("mine.txt", b"x", "is neither a manifest"),
        ("bad.jsonl.gz", b"not gzip", "is not a readable manifest"),
        ("bad.jsonl.gz", b"", "bad.jsonl.gz: "),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=re.escape(str(tmp_path / name)) + f".*{message.removeprefix(name)}"):
        manifests.load(tmp_path / name)


def test_a_cut_short_manifest(folder: Path, librispeech: Path) -> None:
    from asr.corpora.librispeech import prepare

    manifest = prepare(librispeech, folder / "out").subsets[1].manifest
    manifest.write_bytes(manifest.read_bytes()[:-40])
    with pytest.raises(CorpusError, match="is not a readable manifest"):
        manifests.load(manifest)
