"""``asr train-ngrams``, ``asr train-lm``, ``asr train-punctuation`` and ``asr sample-sentences``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.cli import root
from asr.cli.root import app
from asr.exceptions import AsrError


@app.command(name="train-ngrams")
def train_ngrams(
    texts: Annotated[list[Path], typer.Argument(help="Plain text or .gz, one sentence a line.", show_default=False)],
    output: Annotated[Path, typer.Option(help="File to write: .safetensors, .arpa or .arpa.gz.", show_default=False)],
    order: Annotated[int, typer.Option(min=1, max=10, help="Length of the longest n-grams.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="Model whose tokens are counted; words if left out.", show_default=False)
    ] = None,
    minimum_counts: Annotated[
        str, typer.Option(help="n-grams of each length that occur less often are left out, as 1,1,2,2.")
    ] = "1",
    minimum_word_count: Annotated[int, typer.Option(min=1, help="Rarer words are unknown.")] = 1,
) -> None:
    """Estimate an n-gram language model from plain text (modified Kneser-Ney)."""
    from asr.training.ngram_text import train

    try:
        counts = [int(count) for count in minimum_counts.split(",")]
    except ValueError as error:
        raise AsrError(f"--minimum-counts '{minimum_counts}': is not a list of whole numbers; write 1,1,2,2.") from error
    tokenizer = None
    if model is not None:
        from asr import pretrained
        from asr.model.checkpoint import describe

        _, tokenizer = describe(pretrained.find(model))
    trained = train(texts, output, order=order, tokenizer=tokenizer, minimum_counts=counts, minimum_word_count=minimum_word_count)
    grams = ", ".join(f"{count:,} of length {size}" for size, count in enumerate(trained.ngrams, start=1))
    print(f"{trained.path}: {trained.sentences:,} sentences, {trained.tokens:,} tokens, n-grams: {grams}")


@app.command(name="train-lm")
def train_lm(
    configuration: root.Recipe,
    overrides: root.Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="Recogniser whose tokens are read, in place of the recipe's.", show_default=False)
    ] = None,
    resume: root.Resume = False,
) -> None:
    """Train a Transformer language model on plain text; prints the best checkpoint, a folder for --language-model."""
    from asr import configuration as settings
    from asr.training.configuration import LanguageModelRecipe
    from asr.training.language_model import train

    changes = [*(overrides or []), *([f"model={model}"] if model is not None else [])]
    recipe = settings.load(configuration, LanguageModelRecipe, changes)
    print(train(recipe, lambda message: print(message, file=sys.stderr), resume))


@app.command(name="train-punctuation")
def train_punctuation(
    configuration: root.Recipe,
    overrides: root.Overrides = None,
    resume: root.Resume = False,
) -> None:
    """Train a model of Mandarin punctuation on printed text; prints the best checkpoint."""
    from asr import configuration as settings
    from asr.training.configuration import PunctuationRecipe
    from asr.training.punctuation import train

    recipe = settings.load(configuration, PunctuationRecipe, overrides or [])
    print(train(recipe, lambda message: print(message, file=sys.stderr), resume))


@app.command(name="sample-sentences")
def sample_sentences(
    folder: Annotated[Path, typer.Argument(help="Folder of SunPinyin's lm_sc.t3g and pydict_sc.bin.", show_default=False)],
    output: Annotated[Path, typer.Option(help="File for the sentences, one a line.", show_default=False)],
    words: Annotated[int, typer.Option(min=1, help="Words to draw.")] = 20_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
) -> None:
    """Draw Mandarin sentences from the open-gram trigram model, as text for train-ngrams."""
    from asr.training.open_gram import read

    model = read(folder)
    count = characters = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8") as file:
        for sentence in model.sentences(words, seed):
            file.write(f"{sentence}\n")
            count += 1
            characters += len(sentence)
    print(f"{output}: {count:,} sentences, {characters:,} characters")
