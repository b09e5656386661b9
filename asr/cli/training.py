"""``asr train``, ``asr train-text-to-encoder``, ``asr train-draft`` and ``asr evaluate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import decoding, root
from asr.cli.root import Device, DeviceChoice, Precision, PrecisionChoice, app, precision_for


@app.command()
def train(
    configuration: root.Recipe,
    overrides: root.Overrides = None,
    resume: root.Resume = False,
) -> None:
    """Train a recipe; checkpoints, log.jsonl and curves.png go to its output folder."""
    from asr import configuration as settings
    from asr.training.configuration import Recipe
    from asr.training.loop import train as run
    from asr.training.progress import ProgressBar

    recipe = settings.load(configuration, Recipe, overrides or [])
    with ProgressBar() as monitor:
        folder = run(recipe, monitor, resume)
    print(folder)


@app.command(name="train-text-to-encoder")
def train_text_to_encoder(configuration: root.Recipe, overrides: root.Overrides = None) -> None:
    """Learn from speech what an encoder says of each sound, so that decoders can be trained on text; prints the folder."""
    from asr import configuration as settings
    from asr.training.configuration import TextToEncoderRecipe
    from asr.training.text_to_encoder import train

    recipe = settings.load(configuration, TextToEncoderRecipe, overrides or [])
    result = train(recipe, lambda message: print(message, file=sys.stderr, flush=True))
    print(f"{100 * result.explained:.1f} % of the variance of the encoder's output explained", file=sys.stderr)
    print(result.folder)


@app.command(name="train-draft")
def train_draft(
    model: Annotated[str, typer.Argument(help="Embedded model or checkpoint folder.", show_default=False)],
    data: Annotated[
        list[Path], typer.Argument(help="Manifests or csv/jsonl tables of speech; texts are not read.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    hours: Annotated[float, typer.Option(min=0, help="Speech to learn from at most; an hour takes half a GB of memory.")] = 8.0,
    epochs: Annotated[int, typer.Option(min=1, help="How often it is learned from.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=1, help="Tokens that are guessed: the first of the model's.")] = 12_288,
    device: DeviceChoice = Device.auto,
) -> None:
    """Learn to guess what a model's decoder writes next, which makes its greedy search faster; prints the folder."""
    from asr.training.draft import train

    def report(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    result = train(model, data, output, hours=hours, epochs=epochs, vocabulary=vocabulary, device=device.value, report=report)
    shares = ", ".join(f"{100 * share:.1f}" for share in result.right)
    print(f"the first, the first two, ... guesses are right at {shares} % of the tokens of utterances held out", file=sys.stderr)
    print(
        "to use it, put the folder beside the model's weights and write its name as draft: into config.yaml there",
        file=sys.stderr,
    )
    print(result.folder)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Embedded model or checkpoint folder.", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="Manifest or csv/jsonl table.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder for hypotheses, scores and the results row.", show_default=False)],
    decoder: decoding.Decoder = None,
    beam_size: decoding.BeamSize = None,
    ctc_weight: decoding.CtcWeight = None,
    length_bonus: decoding.LengthBonus = None,
    length_normalization: decoding.LengthNormalization = None,
    stop_threshold: decoding.StopThreshold = None,
    minimum_length: decoding.MinimumLength = 0.0,
    iterations: decoding.Iterations = None,
    length_by: decoding.LengthBy = None,
    length_candidates: decoding.LengthCandidates = None,
    language_model: decoding.LanguageModelFile = None,
    language_model_weight: decoding.LanguageModelWeight = None,
    phrases: decoding.PhrasesFile = None,
    phrase_bonus: decoding.PhraseBonus = decoding.PHRASE_BONUS,
    lexicon: decoding.LexiconFile = None,
    unit: Annotated[str, typer.Option(help="word, char or mixed.")] = "word",
    normalizer: Annotated[str, typer.Option(help="none, basic, english or mandarin.")] = "english",
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances decoded together.")] = 16,
    device: Device = DeviceChoice.auto,
    precision: Precision = PrecisionChoice.auto,
    readme: Annotated[Path | None, typer.Option(help="README whose results table gets the row.", show_default=False)] = None,
) -> None:
    """Decode a manifest, score it, and write a row of the results table."""
    from asr.transcription.evaluation import evaluate as run

    result = run(
        model,
        manifest,
        output,
        options=decoding.options(
            decoder,
            language_model,
            phrases,
            phrase_bonus,
            lexicon,
            language_model_weight=language_model_weight,
            beam_size=beam_size,
            ctc_weight=ctc_weight,
            length_bonus=length_bonus,
            length_normalization=length_normalization,
            stop_threshold=stop_threshold,
            minimum_length=minimum_length,
            iterations=iterations,
            length_by=length_by.value if length_by else None,
            length_candidates=length_candidates,
        ),
        unit=unit,
        normalizer=normalizer,
        batch_size=batch_size,
        device=device.value,
        precision=precision_for(precision, device),
        readme=readme,
        command=shlex.join(["asr", *sys.argv[1:]]),
    )
    print(result)
