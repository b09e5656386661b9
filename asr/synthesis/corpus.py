"""A corpus of synthesised speech: a table that grows line by line, and lhotse Shar files made of it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.audio.files import SAMPLE_RATE
from asr.exceptions import ConfigurationError, CorpusError
from asr.synthesis import kokoro
from asr.synthesis.kokoro import Kokoro, Voice, blend, with_timbre
from asr.synthesis.pronunciation import phonemes
from asr.synthesis.sentences import spoken

TABLE = "table.jsonl"
_FOLDER_SIZE = 1000
_SHARD_SIZE = 500


@dataclass(frozen=True)
class Casting:
    """Which voice says a sentence, how fast, and how much silence is around it.

    Args:
        voice: whose pronunciation, durations and melody.
        second: the voice it is blended with, empty for none, ``share`` of it.
        timbre: whose sound, empty for the voice's own.
        speed: 1.1 is faster, at the same pitch.
        level: of the loudest sample, full scale is 1.
        before, after: silence in seconds beside what the model leaves.
    """

    voice: str
    second: str
    share: float
    timbre: str
    speed: float
    level: float
    before: float
    after: float

    @property
    def speaker(self) -> str:
        """The combination's name: ``zm_yunxi+zf_xiaoxiao/af_bella``."""
        return self.voice + (f"+{self.second}" if self.second else "") + (f"/{self.timbre}" if self.timbre else "")


def cast(seed: int, index: int, voices: Sequence[str], timbres: Sequence[str]) -> Casting:
    """Draw the casting of a sentence; it depends on the seed and the sentence's number alone.

    Half of the sentences have a voice of their own, half a blend of two; where there are timbres, two in five have
    one of those.
    """
    generator = np.random.default_rng([seed, index])
    voice = str(generator.choice(list(voices)))
    others = [name for name in voices if name != voice]
    second = str(generator.choice(others)) if others and generator.random() < 0.5 else ""
    share = float(generator.uniform(0.2, 0.5))
    timbre = str(generator.choice(list(timbres))) if timbres and generator.random() < 0.4 else ""
    return Casting(
        voice=voice,
        second=second,
        share=round(share, 3) if second else 0.0,
        timbre=timbre,
        speed=round(float(np.exp(generator.uniform(np.log(0.8), np.log(1.25)))), 3),
        level=round(float(10 ** (generator.uniform(-18, -1) / 20)), 4),
        before=round(float(generator.uniform(0, 0.4)), 3),
        after=round(float(generator.uniform(0, 0.4)), 3),
    )


def say(model: Kokoro, text: str, voices: Mapping[str, Voice], casting: Casting) -> NDArray[np.float32]:
    """Speech of a sentence at 16 kHz, float32 (samples,)."""
    voice = voices[casting.voice]
    if casting.second:
        voice = blend(voice, voices[casting.second], casting.share)
    if casting.timbre:
        voice = with_timbre(voice, voices[casting.timbre])
    samples = soxr.resample(model.speak(phonemes(text), voice, casting.speed), kokoro.SAMPLE_RATE, SAMPLE_RATE)
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak) or peak == 0:
        raise CorpusError(f"sentence '{text}': the model said nothing; remove the sentence.")
    samples = trim(samples)
    edges = (round(casting.before * SAMPLE_RATE), round(casting.after * SAMPLE_RATE))
    return np.pad(samples * (casting.level / peak), edges).astype(np.float32)


def trim(samples: NDArray[np.float32], margin: float = 0.1) -> NDArray[np.float32]:
    """Without the silence before and after, but for a margin in seconds: below 1/250 of the peak nothing is heard."""
    audible = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 250)
    first = max(int(audible[0]) - round(margin * SAMPLE_RATE), 0)
    return samples[first : int(audible[-1]) + 1 + round(margin * SAMPLE_RATE)]


def synthesize(
    model: Kokoro,
    sentences: Sequence[str],
    voices: Mapping[str, Voice],
    timbres: Sequence[str],
    output: Path,
    hours: float,
    seed: int = 0,
) -> Iterator[float]:
    """Say sentences in order until there are so many hours; call again to go on after an interruption.

    Each sentence becomes a 16 kHz FLAC file below ``output/audio``, then a complete line of ``output/table.jsonl`` with
    ``id, audio, text, written, speaker, duration`` and the casting: the table can be trained on while it grows.

    Args:
        sentences: with punctuation, numbers written out.
        voices: everything that the castings name.
        timbres: those of ``voices`` that only lend their sound; the others also speak.

    Yields:
        The hours there are, after each sentence.

    Raises:
        ConfigurationError: there is no voice to speak.
        CorpusError: a table that was written by something else.
    """
    speaking = [name for name in voices if name not in set(timbres)]
    if not speaking:
        raise ConfigurationError("no voice is left to speak; name at least one that is not a timbre.")
    output.mkdir(parents=True, exist_ok=True)
    done = read_table(output / TABLE)
    total = sum(row["duration"] for row in done.values()) / 3600
    with (output / TABLE).open("a", encoding="utf-8") as table:
        for index, written in enumerate(sentences):
            if total >= hours:
                return
            identifier = f"{index:07d}"
            if identifier in done:
                continue
            casting = cast(seed, index, speaking, timbres)
            samples = say(model, written, voices, casting)
            audio = Path("audio", f"{index // _FOLDER_SIZE:04d}", f"{identifier}.flac")
            (output / audio).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(output / audio, samples, SAMPLE_RATE, subtype="PCM_16")
            row: dict[str, object] = {"id": identifier, "audio": audio.as_posix(), "text": spoken(written), "written": written}
            row |= {"speaker": casting.speaker, "duration": round(len(samples) / SAMPLE_RATE, 4), **asdict(casting)}
            table.write(json.dumps(row, ensure_ascii=False) + "\n")
            table.flush()
            total += len(samples) / SAMPLE_RATE / 3600
            yield total


def read_table(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by id; a last line that was cut off by an interruption is removed from the file.

    Raises:
        CorpusError: a line is not a row of such a table.
    """
    if not path.is_file():
        return {}
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if len(complete) != len(content):
        os.truncate(path, len(complete))
    rows = {}
    for number, line in enumerate(complete.decode("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[str(row["id"])] = row | {"duration": float(row["duration"])}
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number}: is no row of a synthesised corpus; name another output.") from error
    return rows


def pack(output: Path, shard_size: int = _SHARD_SIZE) -> list[Path]:
    """Make lhotse Shar files in ``output/shar`` of the table: shards that are complete stay as they are.

    Returns:
        The shards' lists of cuts, which ``CutSet.from_shar`` reads with the recordings beside them.
    """
    from lhotse import CutSet
    from lhotse.shar import SharWriter

    from asr.corpora.utterances import Utterance, to_cuts

    folder = output / "shar"
    rows = list(read_table(output / TABLE).values())
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, first in enumerate(range(0, len(rows), shard_size)):
        shard = rows[first : first + shard_size]
        cuts_file = folder / f"cuts.{number:06d}.jsonl.gz"
        shards.append(cuts_file)
        if _length(cuts_file) == shard_size:
            continue
        cuts = CutSet.from_cuts(
            to_cuts([Utterance(row["id"], output / row["audio"], row["text"], row["speaker"], 0) for row in shard], str(output))
        )
        with SharWriter(str(folder), fields={"recording": "flac"}, shard_size=None, shard_suffix=f".{number:06d}") as writer:
            for cut in cuts:
                writer.write(cut)
    return shards


def _length(cuts_file: Path) -> int:
    """Cuts in a shard's list; it is written to its end after the recordings are."""
    if not cuts_file.is_file():
        return 0
    try:
        with gzip.open(cuts_file, "rt", encoding="utf-8") as lines:
            return sum(1 for _ in lines)
    except (OSError, EOFError):
        return 0
