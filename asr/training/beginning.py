"""What a run needs before its first step: the model of its earlier part, and statistics of the training speech."""

from __future__ import annotations

from typing import Any

import numpy as np
from lhotse import CutSet

from asr.audio.features import Filterbank, FilterbankConfiguration, global_statistics
from asr.corpora.batches import BatchLoader
from asr.exceptions import TrainingError
from asr.model.configuration import ModelConfiguration
from asr.model.recognizer import Recognizer
from asr.training.configuration import Recipe

# Utterances that global normalisation is measured on: an hour or two of speech; a mel's mean needs no more.
_MEASURED_UTTERANCES = 500
# What may be another in the middle of a run: no weight and no token depends on it. Groups as a whole, or single keys.
_MAY_CHANGE = {"confidence", "decoding", "dropout", "tokens_per_second"}


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
