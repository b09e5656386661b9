"""What the explanation shows is what the search did: against recomputation, and in a real browser where there is one."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import warnings
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import asr
from asr.audio import files
from asr.audio.features import FilterbankConfiguration
from asr.cli import app
from asr.exceptions import AsrError, AudioError
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import DecoderConfiguration, EncoderConfiguration, ModelConfiguration
from asr.model.decoder import DecoderWeights
from asr.model.recognizer import Recognizer
from asr.search.greedy import greedy_search
from asr.text.tokenizer import CharacterTokenizer
from asr.transcription.explanation import Explanation, explain, label, merge_keys, merge_queries
from asr.transcription.explanation_page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")


@pytest.fixture(scope="module")
def english() -> Checkpoint:
    return asr.load("en", precision="float32").checkpoint


@pytest.fixture(scope="module")
def welcome(english: Checkpoint, data: Path) -> Explanation:
    return explain(english, data / "welcome.wav")


def untrained(decoder: bool = True, block: str = "transformer", characters: str | None = None) -> Checkpoint:
    torch.manual_seed(3)
    tokenizer = CharacterTokenizer.build(["the quick brown fox jumps over the lazy dog"])
    settings = ModelConfiguration(
        front_end=FilterbankConfiguration(mels=40),
        encoder=EncoderConfiguration(block=block, layers=2, width=32, heads=4, feed_forward=64),
        decoder=DecoderConfiguration(layers=3, heads=2, feed_forward=64) if decoder else None,
        ctc_characters=characters,
    )
    return Checkpoint(Recognizer(settings, len(tokenizer)).eval(), tokenizer)


def test_steps_are_those_of_the_search(english: Checkpoint, welcome: Explanation, data: Path) -> None:
    samples = torch.from_numpy(files.read(data / "welcome.wav"))[None]
    lengths = torch.tensor([samples.shape[1]])
    with torch.inference_mode():
        encoded = english.model.encode(samples, lengths)
        (found,) = greedy_search(english.model, english.tokenizer, encoded, lengths)
        assert found.finish_reason == "stop"
        chosen = [step.chosen for step in welcome.steps]
        assert [each.token for each in chosen if each] == [*found.tokens, english.tokenizer.stop]
        assert all(step.chosen == step.best[0] for step in welcome.steps)
        probabilities = torch.tensor([each.probability for each in chosen[:-1] if each])
        torch.testing.assert_close(probabilities, torch.tensor(found.log_probabilities).exp(), atol=1e-4, rtol=0)
        # Every step once more without cache, on the tokens before it alone.
        decoder = english.model.decoder
        assert decoder is not None
        settings = decoder.configuration
        tokens = [english.tokenizer.identifier(token) for token in settings.prompt]
        for n, step in enumerate(welcome.steps):
            weights = DecoderWeights()
            scores = decoder(torch.tensor([tokens]), encoded.values, encoded.lengths, weights=weights)[0, -1]
            scores[list(settings.suppressed)] = float("-inf")
            if n == 0:
                scores[list(settings.suppressed_at_start)] = float("-inf")
            best = scores.softmax(dim=0).topk(5)
            assert [each.token for each in step.best] == best.indices.tolist()
            assert [each.probability for each in step.best] == pytest.approx(best.values.tolist(), abs=1e-4)
            row = len(tokens) - 1
            shown = welcome.cross_attention.shape[-1] - 1  # the rest is silence that the model adds
            for layer in range(settings.layers):
                for ours, theirs in (
                    (welcome.self_attention[layer, :, row, : row + 1], weights.self_attention[layer][0, :, -1]),
                    (welcome.cross_attention[layer, :, row, :-1], weights.cross_attention[layer][0, :, -1, :shown]),
                ):
                    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
            assert step.chosen is not None
            tokens.append(step.chosen.token)


def test_attention_is_distributed_and_masked(welcome: Explanation) -> None:
    for weights in (welcome.self_attention, welcome.cross_attention, welcome.encoder_attention):
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert not np.triu(welcome.self_attention, 1).any()
    layers, heads = welcome.self_attention.shape[:2]
    assert welcome.self_attention.shape == (layers, heads, 22, 22)
    assert welcome.cross_attention.shape[:2] == (layers, heads)
    assert welcome.cross_attention.shape[2] == len(welcome.inputs) == 22
    # The encoder's map is coarser than its positions, by whole cells.
    cells = welcome.encoder_attention.shape[2]
    assert welcome.encoder_attention.shape[2:] == (cells, cells + 1)
    shown = min(welcome.positions * welcome.position_seconds, welcome.shown_seconds)
    assert 0 <= cells * welcome.encoder_seconds - shown < welcome.encoder_seconds


def test_a_step_listens_where_its_word_is(welcome: Explanation) -> None:
    """The mean over heads, without the moment on which all rest, goes through the sound from its start to its end."""
    rows = welcome.cross_attention.mean(axis=(0, 1))[len(welcome.prompt) - 1 : -1, :-1]
    distinct = rows / rows.mean(axis=0)
    centres = (distinct**4 * np.arange(rows.shape[1])).sum(axis=1) / (distinct**4).sum(axis=1)
    assert np.corrcoef(centres, np.arange(len(centres)))[0, 1] > 0.95


@given(positions=st.integers(1, 40), shown=st.integers(1, 40), factor=st.integers(1, 7))
def test_merged_weights_are_sums_and_means(positions: int, shown: int, factor: int) -> None:
    shown = min(shown, positions)
    weights = torch.rand(1, 2, positions, positions).softmax(dim=-1)
    merged = merge_queries(merge_keys(weights, shown, factor), shown, factor)
    cells = -(-shown // factor)
    assert merged.shape == (1, 2, cells, cells + 1)
    for row in range(cells):
        queries = range(row * factor, min((row + 1) * factor, shown))
        for column in range(cells):
            keys = list(range(column * factor, min((column + 1) * factor, shown)))
            plain = sum(weights[0, 1, query, keys].sum() for query in queries) / len(queries)
            assert float(merged[0, 1, row, column]) == pytest.approx(float(plain), abs=1e-5)
    torch.testing.assert_close(merged.sum(dim=-1), torch.ones(1, 2, cells))


@pytest.mark.parametrize(("block", "characters"), [("transformer", None), ("conformer", None), ("transformer", "zyx wvu")])
def test_characters_and_ctc(data: Path, block: str, characters: str | None) -> None:
    checkpoint = untrained(block=block, characters=characters)
    found = explain(checkpoint, data / "weather.wav", start=1.0, duration=1.5)
    assert found.duration == 1.5
    assert found.hypothesis.finish_reason != "stop"
    assert found.steps[-1].chosen is None
    assert found.tokens[-1] == ""
    assert found.ctc is not None
    assert found.ctc.symbols[0] == "<blank>"
    model = checkpoint.model
    samples = torch.from_numpy(files.read(data / "weather.wav", 1.0, 1.5))[None]
    with torch.inference_mode():
        posteriors = model.ctc_log_probabilities(model.encode(samples, torch.tensor([samples.shape[1]])))[0].exp()
    numbers = [0, *(checkpoint.ctc_tokenizer.identifier(symbol) for symbol in found.ctc.symbols[1:])]
    np.testing.assert_allclose(found.ctc.probabilities, posteriors[:, numbers].T.numpy(), atol=1e-6)
    assert [numbers[row] for row in found.ctc.path] == posteriors.argmax(dim=-1).tolist()
    assert 'class=""' in page(found, "untrained")


def test_a_model_without_decoder_is_explained_by_ctc(data: Path) -> None:
    found = explain(untrained(decoder=False), data / "weather.wav")
    assert found.steps == () == found.inputs
    assert found.ctc is not None
    assert found.ctc.text == found.hypothesis.text
    assert '<body class="no-decoder">' in page(found, "untrained")


def test_tokens_are_shown_as_they_are_read(english: Checkpoint) -> None:
    tokenizer = english.tokenizer
    assert label(tokenizer, tokenizer.stop) == "<|endoftext|>"
    (first, *_) = tokenizer.encode("机")
    assert re.fullmatch(r"<e6(·[0-9a-f]{2})*>", label(tokenizer, first))
    assert label(untrained().tokenizer, 4) == " "


class Checker(HTMLParser):
    """Elements are closed in order, and nothing is fetched from elsewhere."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.identifiers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [str(values[name]) for name in ("src", "href", "action", "srcset") if name in values]
        if "id" in values:
            self.identifiers.append(str(values["id"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_offline(welcome: Explanation) -> None:
    text = page(welcome, "en")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(set(checker.identifiers)) == len(checker.identifiers)
    for reference in checker.references:
        assert reference.startswith("data:") or reference[1:] in checker.identifiers, reference[:80]
    assert not re.search(r"https?://|@import|url\(", text)
    assert "@@" not in text
    assert len(text) < 2_000_000
    for word in welcome.hypothesis.text.split():
        assert word in text
    audio = re.search(r"data:audio/flac;base64,([^\"]+)", text)
    assert audio is not None
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio[1])), dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(samples, welcome.samples, atol=1 / 32768)


def test_the_numbers_on_the_page_are_those_of_the_run(welcome: Explanation) -> None:
    text = page(welcome, "en")
    content = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    packed = zlib.decompress(base64.b64decode(re.findall(r'id="arrays">(.*?)</script>', text, re.DOTALL)[0]))

    def array(name: str) -> Any:
        entry = content["arrays"][name]
        return np.frombuffer(packed, entry["kind"], int(np.prod(entry["shape"])), entry["at"]).reshape(entry["shape"])

    for name, weights in (
        ("cross", welcome.cross_attention),
        ("self", welcome.self_attention),
        ("encoder", welcome.encoder_attention),
    ):
        largest = array(f"{name}Largest")[..., None]
        assert np.abs(array(name) * largest / 255 - weights).max() <= largest.max() / 509
    assert content["tokens"][0] == "Welcome"
    assert content["duration"] == welcome.duration


def test_marks_of_html_in_a_text_stay_text(data: Path) -> None:
    tokenizer = CharacterTokenizer(["<blank>", "<unk>", "<sos>", "<eos>", "<", ">", "&", "@"])
    settings = ModelConfiguration(
        encoder=EncoderConfiguration(layers=1, width=16, heads=2, feed_forward=16),
        decoder=DecoderConfiguration(layers=1, heads=2, feed_forward=16),
    )
    torch.manual_seed(0)
    found = explain(Checkpoint(Recognizer(settings, len(tokenizer)).eval(), tokenizer), data / "weather.wav", duration=1)
    checker = Checker()
    checker.feed(page(found, "<b>model</b> @@TEXT@@"))
    assert checker.open == []


def test_the_command_writes_page_and_picture(data: Path, tmp_path: Path) -> None:
    target = [str(tmp_path / "page.html"), str(tmp_path / "page.png")]
    arguments = ["explain", str(data / "weather.wav"), "--output", target[0], "--png", target[1], "--duration", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.png"]
    from matplotlib.image import imread

    picture = imread(target[1])
    assert picture.shape[1] == 1430
    # Neither empty nor one colour.
    assert 0.05 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.9
    assert CliRunner().invoke(app, ["explain", str(data / "weather.wav")]).exit_code == 2


def test_the_model_is_of_the_language_that_is_heard(data: Path, tmp_path: Path) -> None:
    target = [str(tmp_path / "page.html"), "--png", str(tmp_path / "page.png")]
    arguments = ["explain", str(data / "机器学习.wav"), "--output", *target]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>机器学习</h1>" in written
    # Greedy search would have heard another first character; what is explained is what asr transcribe writes.
    found = explain(asr.load("zh", precision="float32").checkpoint, data / "机器学习.wav")
    *letters, stop = [step.chosen.text for step in found.steps if step.chosen]
    # 习 is two tokens, of two bytes and one.
    assert (letters[:3], len(letters), stop) == (["机", "器", "学"], 5, "<|endoftext|>")
    for step in found.steps:
        assert step.chosen in step.best
        assert len({each.token for each in step.best}) == len(step.best)
    # With a font for these characters nothing is said of them.
    assert re.fullmatch(r"(asr: no font here has all characters .*\n)?", result.stderr)


def test_failures_are_one_sentence(english: Checkpoint, tmp_path: Path, data: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(size=16000 * 31) * 0.1, 16000)
    soundfile.write(tmp_path / "short.wav", np.full(20, 0.5), 16000)
    for name, sentence in (
        ("silent.wav", "is silent; give a recording with speech."),
        ("long.wav", "is longer than 30 s; choose an utterance with --start and --duration."),
    ):
        with pytest.raises(AudioError, match=re.escape(f"{name}: {sentence}")):
            explain(english, tmp_path / name)
    with pytest.raises(AudioError, match="too short"):
        explain(untrained(), tmp_path / "short.wav")
    arguments = ["explain", str(data / "weather.wav"), "--duration", "1"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "no" / "page.html")])
    assert isinstance(result.exception, AsrError)
    assert "give another --output" in str(result.exception)


# Runs in the page once it is drawn: uses every control, and leaves what it saw in the title.
_USE = """<script>
const wait = setInterval(() => {
  if (document.body.dataset.ready !== "yes") return;
  clearInterval(wait);
  const seen = {};
  const mean = attention("cross", ["all", "all"]);
  seen.mean = [mean.values[5 * mean.columns + 40], mean.values[9 * mean.columns + 100]];
  const one = attention("self", [2, 3]);
  seen.one = one.values[7 * one.columns + 4];
  document.querySelector(".label").focus();
  for (const key of ["ArrowDown", "ArrowDown", "ArrowDown"])
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  seen.step = state.step;
  seen.focused = document.activeElement.textContent;
  seen.read = document.getElementById("read-triangle").textContent;
  for (const input of document.querySelectorAll("input[type=radio]")) input.click();
  seen.chosen = [state.decoder, state.encoder];
  document.getElementById("all-cross").open = true;
  thumbnails();
  const heads = document.querySelectorAll(".heads button");
  seen.heads = heads.length;
  heads[7].click();
  seen.pressed = state.decoder;
  document.getElementById("theme").click();
  seen.theme = document.documentElement.dataset.theme;
  document.getElementById("square").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  document.getElementById("replay").click();
  seen.later = document.querySelectorAll(".step.later").length;
  document.getElementById("replay").click();
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  seen.drawn = [...document.querySelectorAll("canvas")].map(canvas => canvas.width > 20 && canvas.height > 5 &&
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0));
  document.title = JSON.stringify(seen);
}, 50);
</script></body>"""


def browse(path: Path, width: int) -> tuple[str, list[str]]:
    """The page after its scripts have run, and what the browser's console says."""
    assert CHROMIUM is not None
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, *arguments, profile, f"--window-size={width},900", "--dump-dom", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_it_without_complaint(welcome: Explanation, tmp_path: Path, width: int) -> None:
    target = tmp_path / "page.html"
    target.write_text(page(welcome, "en").replace("</body>", _USE), encoding="utf-8")
    content, console = browse(target, width)
    assert console == []
    title = re.search("<title>(.*?)</title>", content)
    assert title is not None
    seen = json.loads(title[1])
    average = welcome.cross_attention.mean(axis=(0, 1))
    assert seen["mean"] == pytest.approx([average[5, 40], average[9, 100]], abs=1e-3)
    assert seen["one"] == pytest.approx(welcome.self_attention[2, 3, 7, 4], abs=2e-3)
    assert seen["step"] == 3
    assert seen["focused"] == "␣recording"
    assert seen["read"].startswith("Having read ␣this, it looks at ")
    assert seen["read"].endswith("emits ␣recording.")
    layers, heads = welcome.cross_attention.shape[:2]
    last = [[size - 1 for size in weights.shape[:2]] for weights in (welcome.cross_attention, welcome.encoder_attention)]
    assert seen["chosen"] == last
    assert seen["heads"] == layers * heads
    assert seen["pressed"] == [7 // heads, 7 % heads]
    assert seen["theme"] == "dark"
    assert seen["later"] == len(welcome.steps) - 1
    assert seen["wide"] <= 0
    # Without CTC head there is nothing to draw for it.
    assert seen["drawn"].count(False) == (2 if welcome.ctc is None else 0)


@needs_browser
@pytest.mark.parametrize("decoder", [True, False])
def test_a_browser_draws_ctc(data: Path, tmp_path: Path, decoder: bool) -> None:
    target = tmp_path / "page.html"
    target.write_text(page(explain(untrained(decoder), data / "weather.wav", duration=2), "x"), encoding="utf-8")
    content, console = browse(target, 1280)
    assert console == []
    assert 'data-ready="yes"' in content
