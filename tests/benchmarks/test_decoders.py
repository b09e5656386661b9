"""All decoders of one model on the same encoded speech: error rate, time of the decoder stage and of the whole.

ASR_MANIFEST=manifests/librispeech/dev-extra.jsonl.gz ASR_EVERY=4 pytest tests/benchmarks/test_decoders.py -s -o addopts= \
    --model runs/characters/checkpoints/step-... --report table.md

With ASR_NGRAMS, a model of asr train-ngrams over the same characters, the searches that can ask it are measured with it too.
ASR_PRECISION is auto, as ``asr transcribe`` computes, or another that --precision takes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from asr.audio import files
from asr.corpora import manifests
from asr.model import checkpoint
from asr.model.precision import choose
from asr.model.recognizer import Encoded
from asr.scoring.errors import count
from asr.search import language_model
from asr.search.decoding import decode
from asr.search.options import DecodingOptions

PASSES = (1, 2, 4, 10)
VARIANTS = {
    "autoregressive, greedy": DecodingOptions("autoregressive", beam_size=1),
    "CTC, greedy": DecodingOptions("ctc"),
    **{
        f"nonautoregressive, {way}, K = {k}": DecodingOptions("nonautoregressive", length_by=way, iterations=k)
        for way in ("alignment", "ctc", "predictor", "row")
        for k in PASSES
    },
    **{
        f"nonautoregressive, alignment, K = {k}, all places": DecodingOptions(
            "nonautoregressive", length_by="alignment", iterations=k, ctc_threshold=1.0
        )
        for k in (1, 4)
    },
    "nonautoregressive, best of 3 lengths, K = 4": DecodingOptions(
        "nonautoregressive", length_by="predictor", length_candidates=3
    ),
    "autoregressive, beam 5": DecodingOptions("autoregressive", beam_size=5, length_normalization=1.0),
    "joint, beam 5": DecodingOptions("joint", beam_size=5),
    "CTC, beam 10": DecodingOptions("ctc-beam", beam_size=10),
}
# Chosen on every 62nd utterance of dev-extra.
WITH_NGRAMS = {
    "joint, beam 5, n-grams": {"decoder": "joint", "beam_size": 5, "language_model_weight": 0.3, "length_bonus": 0.5},
    "CTC, beam 10, n-grams": {"decoder": "ctc-beam", "beam_size": 10, "language_model_weight": 0.5, "length_bonus": 0.8},
}
BATCHES = (16, 1)


def test_decoders(request: pytest.FixtureRequest) -> None:
    folder, report = Path(request.config.getoption("--model")), request.config.getoption("--report")
    if not folder.is_dir() or "ASR_MANIFEST" not in os.environ:
        pytest.skip("needs a checkpoint with all three heads and a manifest: give --model and set ASR_MANIFEST")
    loaded = checkpoint.load(folder, "cpu", choose(os.environ.get("ASR_PRECISION", "auto"), "cpu"))
    model, tokenizer = loaded.model, loaded.tokenizer
    cuts = list(manifests.load(Path(os.environ["ASR_MANIFEST"])))[:: int(os.environ.get("ASR_EVERY", "1"))]
    cuts.sort(key=lambda cut: float(cut.duration))
    seconds = sum(float(cut.duration) for cut in cuts)
    references = {cut.supervisions[0].id: cut.supervisions[0].text or "" for cut in cuts}
    samples = [torch.from_numpy(files.read(cut.recording.sources[0].source)) for cut in cuts]
    lengths = torch.tensor([len(each) for each in samples])
    known = model.nonautoregressive.configuration.lengths if model.nonautoregressive else ()
    variants = {name: each for name, each in VARIANTS.items() if each.length_by is None or each.length_by in known}
    if ngrams := os.environ.get("ASR_NGRAMS"):
        fused = language_model.load(Path(ngrams))
        variants |= {name: DecodingOptions(**options, language_model=fused) for name, options in WITH_NGRAMS.items()}  # type: ignore[arg-type]
    lines = [
        "| decoder | WER | S | D | I | decoder stage, batch 1 | batch 16 | whole, batch 1 | batch 16 |",
        "|---|" + "---:|" * 8,
    ]
    with torch.inference_mode():
        encoded, encoding = {}, {}
        for size in BATCHES:
            began = time.process_time()
            encoded[size] = []
            for first in range(0, len(cuts), size):
                waveforms = pad_sequence(samples[first : first + size], batch_first=True)
                encoded[size].append(model.encode(waveforms, lengths[first : first + size]))
            encoding[size] = (time.process_time() - began) / seconds
        for name, options in variants.items():
            spent, texts = {}, {}
            for size in BATCHES[:1] if "beam" in name else BATCHES:
                began = time.process_time()
                found = []
                for number, each in enumerate(encoded[size]):
                    found += decode(model, tokenizer, each, lengths[number * size : number * size + size], options)
                spent[size] = (time.process_time() - began) / seconds
                texts = dict(zip(references, (hypothesis.text for hypothesis in found), strict=True))
            score = count(references, texts, unit="word", normalizer="english")
            errors = (score.total.substitutions, score.total.deletions, score.total.insertions)
            cells = [name, f"{100 * score.rate:.1f}%", *map(str, errors)]
            cells += [f"{spent[size]:.4f}" if size in spent else "" for size in (1, 16)]
            cells += [f"{spent[size] + encoding[size]:.4f}" if size in spent else "" for size in (1, 16)]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        lines += ["", _at_length(model, tokenizer, encoded[1], 200, variants)]
    table = "\n".join(lines)
    print(f"{len(cuts)} utterances, {seconds / 3600:.2f} hours\n{table}")
    if report is not None:
        Path(report).write_text(table + "\n")


def _at_length(
    model: object, tokenizer: object, encoded: list[Encoded], wanted: int, variants: dict[str, DecodingOptions]
) -> str:
    """Time of one utterance whose text is about so long, whatever it says: the median of five."""
    from statistics import median

    times = {}
    near, best = None, 10**9
    options = {
        name: each for name, each in variants.items() if "autoregressive" in name and "best" not in name and "beam" not in name
    }
    for each in encoded:
        count_ = abs(len(decode(model, tokenizer, each, [int(each.lengths[0]) * 320], DecodingOptions("ctc"))[0].tokens) - wanted)
        near, best = (each, count_) if count_ < best else (near, best)
    assert near is not None
    for name, each_options in options.items():
        spent = []
        for _ in range(5):
            began = time.process_time()
            (found,) = decode(model, tokenizer, near, [int(near.lengths[0]) * 320], each_options)
            spent.append(time.process_time() - began)
        times[name] = f"{name} {1000 * median(spent):.1f} ms ({len(found.tokens)} characters)"
    return "; ".join(times.values())
