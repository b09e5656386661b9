"""What a run begins with: the weights of a parent, and what is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.corpora import manifests
from asr.model import checkpoint as model_folder
from asr.training import checkpoints, loop
from asr.training.beginning import build
from asr.training.configuration import Recipe
from tests.training.conftest import weights

Make = Callable[..., Recipe]


def test_fine_tuning_starts_from_the_parent_and_leaves_frozen_parts(recipe: Make) -> None:
    parent = checkpoints.last(loop.train(recipe("parent", training__epochs=1)))
    assert parent is not None
    child = recipe("child", initialize=str(parent), training__epochs=1, training__learning_rates={"encoder": 0.0})
    before, after = model_folder.load(parent).model.state_dict(), weights(loop.train(child))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "ctc"}


@pytest.mark.parametrize("nonspeech", [0.0, 0.1])
def test_what_hears_silence_in_training_may_end_its_text_at_once(recipe: Make, nonspeech: float) -> None:
    """Whisper's search forbids it."""
    parent = checkpoints.last(loop.train(recipe("parent", training__epochs=1)))
    assert parent is not None
    config = parent / model_folder.CONFIGURATION
    stop = model_folder.load(parent).tokenizer.stop
    text = config.read_text()
    assert "suppressed_at_start: []" in text
    config.write_text(text.replace("suppressed_at_start: []", f"suppressed_at_start: [{stop}, {stop + 1}]"))
    settings = recipe("child", initialize=str(parent), training__epochs=1, data__nonspeech=nonspeech)
    loop.train(settings)
    again = recipe("child", initialize=str(parent), training__epochs=2, data__nonspeech=nonspeech)
    found = checkpoints.last(loop.train(again, resume=True))
    assert found is not None
    decoder = model_folder.load(found).model.configuration.decoder
    assert decoder is not None
    assert decoder.suppressed_at_start == ((stop + 1,) if nonspeech else (stop, stop + 1))


def test_new_layers_on_a_trained_encoder_add_nothing_at_first(recipe: Make, tones: Path) -> None:
    cuts = manifests.load_all([str(tones)])
    folder = checkpoints.last(loop.train(recipe("parent", training__epochs=1)))
    assert folder is not None
    parent = model_folder.load(folder).model.eval()
    layers = len(parent.encoder.layers)
    child = build(recipe("child", initialize=str(folder), model__encoder__layers=layers + 2), cuts, None).model.eval()
    assert len(child.encoder.layers) == layers + 2
    waveforms, lengths = torch.randn(2, 16_000), torch.tensor([16_000, 9_000])
    torch.testing.assert_close(child.encode(waveforms, lengths).values, parent.encode(waveforms, lengths).values)
    again = build(
        recipe(
            "again",
            initialize=str(folder),
            model__encoder__layers=layers + 1,
            initialize_parts={f"encoder.layers.{layers}": "encoder.layers.0"},
        ),
        cuts,
        None,
    ).model
    last = again.encoder.layers[layers].state_dict()
    for name, value in parent.encoder.layers[0].state_dict().items():
        assert torch.equal(last[name], value)
