"""What a run needs before its first step: its model, new or of its earlier part or of a parent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import CutSet
from torch import Tensor

from asr import pretrained
from asr.audio.features import Filterbank, FilterbankConfiguration, global_statistics
from asr.corpora.batches import BatchLoader
from asr.exceptions import TrainingError
from asr.model import checkpoint as model_folder
from asr.model.checkpoint import Checkpoint
from asr.model.configuration import ModelConfiguration
from asr.model.encoder import TransformerBlock
from asr.model.recognizer import Recognizer
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer
from asr.training.configuration import Recipe

# Utterances that global normalisation is measured on: an hour or two of speech; a mel's mean needs no more.
_MEASURED_UTTERANCES = 500
# What may be another in the middle of a run: no weight and no token depends on it. Groups as a whole, or single keys.
_MAY_CHANGE = {"confidence", "decoding", "dropout", "no_speech_threshold", "punctuation", "tokens_per_second"}


def build(recipe: Recipe, cuts: CutSet, earlier: Path | None) -> Checkpoint:
    """The model to train: of the earlier part of this run, of the parent, or new.

    Args:
        recipe: what is trained.
        cuts: the training speech, for a vocabulary and for the statistics of global normalisation.
        earlier: last checkpoint of the run, if it goes on.

    Raises:
        TrainingError: the recipe's model is not that of the run so far, or does not fit its parent.
        CheckpointError: a checkpoint cannot be read.
    """
    configuration = recipe.model_configuration()
    if earlier is not None:
        found = model_folder.load(earlier)
        configuration = may_be_empty(configuration, found.tokenizer.stop, recipe)
        return replace(found, model=as_configured(found.model, configuration, recipe))
    if configuration.front_end.normalization == "global" and configuration.front_end.mean is None:
        configuration = configuration.model_copy(update={"front_end": with_statistics(configuration.front_end, cuts)})
    if recipe.initialize is None:
        texts = (supervision.text or "" for cut in cuts for supervision in cut.supervisions)
        tokenizer = CharacterTokenizer.build(texts, configuration.tokenizer)
        return Checkpoint(Recognizer(configuration, len(tokenizer)), tokenizer)
    parent = model_folder.load(pretrained.find(recipe.initialize))
    vocabulary: CharacterTokenizer | BytePairTokenizer = parent.tokenizer
    other = configuration.tokenizer.kind != parent.model.configuration.tokenizer.kind
    if other:
        # Another kind of text: the vocabulary, and all that has a row for each token, start anew.
        texts = (supervision.text or "" for cut in cuts for supervision in cut.supervisions)
        vocabulary = CharacterTokenizer.build(texts, configuration.tokenizer)
    configuration = may_be_empty(configuration, vocabulary.stop, recipe)
    model = Recognizer(configuration, len(vocabulary))
    for layer in model.encoder.layers[len(parent.model.encoder.layers) :]:
        if isinstance(layer, TransformerBlock):
            layer.add_nothing()
    weights = renamed(parent.model.state_dict(), recipe.initialize_parts)
    own = model.state_dict()
    if other:
        weights = {name: value for name, value in weights.items() if name in own and not _has_a_row_for_each_token(name)}
    if unfit := [name for name, value in weights.items() if name in own and own[name].shape != value.shape]:
        raise TrainingError(f"recipe {recipe.name}: {unfit[0]} has another shape than in {recipe.initialize}.")
    model.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})
    built = Checkpoint(model, vocabulary)
    if model.ctc is not None and (other or parent.model.ctc is None):
        model.silence_ctc(built.ctc_tokenizer.blank)
    return built


def may_be_empty(configuration: ModelConfiguration, stop: int, recipe: Recipe) -> ModelConfiguration:
    """A model that is shown silence and noise may end its text at once, which Whisper's search forbids."""
    decoder = configuration.decoder
    if decoder is None or not recipe.data.nonspeech:
        return configuration
    first = tuple(token for token in decoder.suppressed_at_start if token != stop)
    return configuration.model_copy(update={"decoder": decoder.model_copy(update={"suppressed_at_start": first})})


def as_configured(model: Recognizer, wanted: ModelConfiguration, recipe: Recipe) -> Recognizer:
    """The model of the earlier part of a run with what may change in a run: dropout and the search.

    Raises:
        TrainingError: something else has changed, which other weights or other text would be needed for.
    """
    old, new = (_flat(each.model_dump(mode="json")) for each in (model.configuration, wanted))
    if wanted.front_end.mean is None:
        # They were measured when the run began.
        new = {key: old[key] if key in ("front_end.mean", "front_end.standard_deviation") else new[key] for key in new}
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if fixed := [key for key in changed if _MAY_CHANGE.isdisjoint(key.split("."))]:
        differences = ", ".join(f"model.{key} was {old.get(key)} and is {new.get(key)}" for key in fixed[:3])
        raise TrainingError(
            f"recipe {recipe.name}: {differences}; resume {recipe.output} with its own model or choose another output."
        )
    if not changed:
        return model
    again = Recognizer(wanted.model_copy(update={"front_end": model.configuration.front_end}), model.vocabulary)
    again.load_state_dict(model.state_dict())
    return again


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def with_statistics(front_end: FilterbankConfiguration, cuts: CutSet) -> FilterbankConfiguration:
    """The front end with mean and deviation of each mel, over a fixed sample of the training speech."""
    chosen = list(cuts)
    order = np.random.default_rng(0).permutation(len(chosen))[:_MEASURED_UTTERANCES]
    loader = BatchLoader(CutSet.from_cuts(chosen[n] for n in sorted(order)), maximum_seconds=120, shuffle=False, seed=0)
    plain = Filterbank(front_end.model_copy(update={"normalization": "none"}))
    mean, deviation = global_statistics(plain, ((batch.waveforms, batch.lengths) for batch in loader.epoch(0)))
    return front_end.model_copy(update={"mean": mean, "standard_deviation": deviation})


def renamed(weights: dict[str, Tensor], parts: dict[str, str]) -> dict[str, Tensor]:
    """Weights, and those of ``parts``: prefix of the new name -> prefix of the old one, empty to start from random numbers.

    Raises:
        TrainingError: no weight begins with an old prefix.
    """
    found = dict(weights)
    # Shortest first, so that the longest prefix has the last word.
    for new, old in sorted(parts.items(), key=lambda pair: len(pair[0])):
        found = {name: value for name, value in found.items() if not f"{name}.".startswith(f"{new}.")}
        taken = {f"{new}{name[len(old) :]}": value for name, value in weights.items() if f"{name}.".startswith(f"{old}.")}
        if not taken and old:
            raise TrainingError(f"initialize_parts: the parent has no parameter that begins with {old}.")
        found.update(taken)
    return found


def _has_a_row_for_each_token(name: str) -> bool:
    return name.startswith("ctc.") or ".token_embedding." in name
