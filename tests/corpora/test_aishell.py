from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from lhotse.recipes.aishell import prepare_aishell

from asr.corpora import aishell as room
from asr.corpora import manifests
from asr.corpora.manifests import Published
from asr.exceptions import CorpusError
from tests.corpora.conftest import Write, listed


def test_real_wav_gives_what_lhotse_gives(corpora: Path, tmp_path: Path) -> None:
    root = tmp_path / "data_aishell"
    shutil.copytree(corpora / "data_aishell-wav-sample", root)
    # lhotse wants all three subsets.
    for number, file in enumerate(sorted(root.glob("wav/train/S0150/*.wav"))):
        folder = root / "wav" / ("train", "dev", "test")[number % 3] / "S0150"
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    theirs = prepare_aishell(tmp_path)
    subsets = room.prepare(tmp_path, tmp_path / "out").subsets
    assert sorted(theirs) == [subset.name for subset in subsets]
    for subset in subsets:
        # lhotse puts Latin letters in upper case; here a transcript's letters stay as they are.
        ours = manifests.load(subset.manifest)
        assert {c.id: (c.supervisions[0].text.upper(), c.supervisions[0].speaker) for c in ours} == {
            s.id: (s.text, s.speaker) for s in theirs[subset.name]["supervisions"]
        }
        assert {c.id: (c.recording.num_samples, c.recording.sampling_rate) for c in ours} == {
            r.id: (r.num_samples, r.sampling_rate) for r in theirs[subset.name]["recordings"]
        }


def test_real_opus_has_the_listed_speech(corpora: Path, tmp_path: Path) -> None:
    preparation = room.prepare(corpora, tmp_path)
    found = {s.name: (s.utterances, round(s.hours, 3), s.speakers, s.complete) for s in preparation.subsets}
    assert found == {"train": (500, 0.661, 1, False), "dev": (400, 0.438, 1, False)}
    rows = listed(corpora, "data_aishell/")
    for subset in preparation.subsets:
        for cut in manifests.load(subset.manifest):
            duration, speaker, text = rows[cut.id]
            assert abs(cut.duration - duration) < 6e-4
            assert cut.supervisions[0].speaker == speaker
            # Only spaces may differ from the transcript.
            assert cut.supervisions[0].text.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("parent", [True, False])
def test_texts_have_spaces_between_latin_words_only(aishell: Path, tmp_path: Path, parent: bool) -> None:
    preparation = room.prepare(aishell.parent if parent else aishell, tmp_path / "out")
    assert preparation.corpus == aishell
    assert [subset.name for subset in preparation.subsets] == ["dev", "test", "train"]
    for subset in preparation.subsets:
        texts = [cut.supervisions[0].text for cut in manifests.load(subset.manifest)]
        assert texts == ["设定二十九度", "想听Let It Go苹果pay"]
        assert (subset.utterances, subset.speakers, subset.words, subset.characters) == (2, 1, 9, 20)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("  设定 三十度 ", "设定三十度"),
        ("新 款 Ａ Ｂ 表", "新款Ａ Ｂ表"),
        ("apple  pay 和 V 二 X", "apple pay和V二X"),
        ("I\tT 番愚路 店", "I T番愚路店"),
    ],
)
def test_join_words(words: str, text: str) -> None:
    assert room.join_words(words) == text


def test_a_transcript_without_audio_is_listed(aishell: Path, tmp_path: Path) -> None:
    next(aishell.glob("wav/dev/*/*0001.wav")).unlink()
    with pytest.raises(CorpusError, match=r"1 transcripts have no audio \(BAC009S0724W0001\)"):
        room.prepare(aishell, tmp_path / "out")


def test_transcripts_of_a_missing_subset_are_a_warning(aishell: Path, tmp_path: Path) -> None:
    (aishell / "wav" / "test").rename(tmp_path / "elsewhere")
    preparation = room.prepare(aishell, tmp_path / "out")
    assert preparation.warnings == ("2 transcripts are of speakers without recordings; there is no test.",)
    assert [subset.name for subset in preparation.subsets] == ["dev", "train"]


def test_a_speaker_missing_from_all_subsets_is_an_error(aishell: Path, tmp_path: Path) -> None:
    (aishell / "wav" / "test" / "S0764").rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=r"2 transcripts have no audio \(BAC009S0764W0000, BAC009S0764W0001\)"):
        room.prepare(aishell, tmp_path / "out")


def test_recordings_never_transcribed(aishell: Path, tmp_path: Path, write_audio: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(aishell / "wav" / "test" / "S0764" / "BAC009S0764W0999.wav")
    with pytest.raises(CorpusError, match=r"1 audio files have no transcript \(BAC009S0764W0999\)"):
        room.prepare(aishell, tmp_path / "out")
    monkeypatch.setitem(room.PUBLISHED, "test", Published(2, characters=20))
    subset = room.prepare(aishell, tmp_path / "out").subsets[1]
    assert (subset.name, subset.utterances, subset.complete) == ("test", 2, True)
    assert subset.warnings == ("test: 1 recordings without transcript are left out (BAC009S0764W0999).",)


def test_an_utterance_in_two_subsets(aishell: Path, tmp_path: Path, write_audio: Write) -> None:
    write_audio(aishell / "wav" / "train" / "S0764" / "BAC009S0764W0000.wav")
    with pytest.raises(CorpusError, match=r"in two subsets \(BAC009S0764W0000\)"):
        room.prepare(aishell, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"BAC009S0002W0000\n", "line 1: utterance BAC009S0002W0000 has no text"),
        ("A 一\n\nA 二\n".encode(), "line 3: utterance A is there twice"),
    ],
)
def test_a_broken_transcript_is_one_sentence(aishell: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    file = aishell / "transcript" / "aishell_transcript_v0.8.txt"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"aishell_transcript_v0.8.txt.*{message}"):
        room.prepare(aishell, tmp_path / "out")


def test_a_folder_without_a_subset(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no wav/train"):
        room.prepare(tmp_path, tmp_path / "out")


def test_download_unpacks_the_archives_within_the_archive(
    aishell: Path,
    mirror: tuple[str, Path],
    tmp_path: Path,
) -> None:
    url, folder = mirror
    (folder / "33").mkdir()
    packed = tmp_path / "packed" / "data_aishell"
    (packed / "wav").mkdir(parents=True)
    (aishell / "transcript").rename(packed / "transcript")
    for subset in ("train", "dev", "test"):
        (speaker,) = (aishell / "wav" / subset).iterdir()
        with tarfile.open(packed / "wav" / f"{speaker.name}.tar.gz", "w:gz") as archive:
            archive.add(speaker, f"{subset}/{speaker.name}")
    with tarfile.open(folder / "33" / "data_aishell.tgz", "w:gz") as archive:
        archive.add(packed, "data_aishell")
    with tarfile.open(folder / "33" / "resource_aishell.tgz", "w:gz") as archive:
        archive.add(packed / "transcript", "resource_aishell")
    target = tmp_path / "target"
    room.fetch(target, url)
    assert [(s.name, s.utterances) for s in room.prepare(target, tmp_path / "out").subsets] == [
        ("dev", 2),
        ("test", 2),
        ("train", 2),
    ]


def test_download_leaves_an_own_copy_alone(aishell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OPENSLR", "http://127.0.0.1:9")
    preparation = room.prepare(aishell, tmp_path / "out", download=True)
    assert len(preparation.subsets) == 3


def test_a_failed_download_is_one_sentence(mirror: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="download failed"):
        room.fetch(tmp_path / "target", mirror[0])
