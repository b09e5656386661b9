from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr import configuration
from asr.exceptions import ConfigurationError, TrainingError
from asr.model.recognizer import Recognizer
from asr.training.configuration import Recipe
from asr.training.optimization import hasten_rows, parameter_groups

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("training__learning_rat", "learning_rate"),
        ("data__batch_second", "batch_seconds"),
        ("data__augmentation__spec_augmet", "spec_augment"),
        ("initialise", "initialize"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(recipe: Make, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{wrong.replace('__', '.')}'.*did you mean '{nearest}'"):
        recipe(**{wrong: 1})


def test_an_unknown_key_of_the_model_is_refused_with_the_nearest_one(recipe: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"encoder\.layer'.*did you mean 'layers'"):
        recipe(model__encoder__layer=2).model_configuration()


def test_overrides_change_a_value_and_leave_its_neighbours(recipe: Make) -> None:
    changed = recipe(training__learning_rate=0.5, training__betas=[0.8, 0.9], model__encoder__layers=3)
    plain = recipe()
    assert changed.training.learning_rate == 0.5
    assert changed.training.betas == (0.8, 0.9)
    assert changed.training.epochs == plain.training.epochs
    assert changed.model_configuration().encoder.layers == 3
    assert changed.model_configuration().encoder.width == plain.model_configuration().encoder.width


def test_a_recipe_written_and_read_is_the_same(recipe: Make, tmp_path: Path) -> None:
    first = recipe(training__learning_rates={"encoder": 0.5})
    configuration.dump(first, tmp_path / "again.yaml")
    assert configuration.load(tmp_path / "again.yaml", Recipe) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__epochs": 0}, "training.epochs"),
        ({"training__ctc_weight": 1.5}, "training.ctc_weight"),
        ({"training__learning_rates": {"encoder": -1}}, "not below 0"),
        ({"data__train": []}, "data.train"),
        ({"data__nonspeech": 0.9}, "data.nonspeech"),
        ({"training__precision": "float64"}, "training.precision"),
        ({"initialize": "/nowhere"}, "neither a checkpoint folder nor an embedded model"),
    ],
)
def test_values_that_make_no_sense_are_refused(recipe: Make, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        recipe(**changes)


def test_the_objective_needs_the_model_s_parts(recipe: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.ctc is false"):
        recipe(model__ctc=False).model_configuration()
    with pytest.raises(ConfigurationError, match="no decoder"):
        recipe(model__decoder=None).model_configuration()
    assert recipe(model__decoder=None, training__ctc_weight=1).model_configuration().decoder is None
    assert not recipe(model__ctc=False, training__ctc_weight=0).model_configuration().ctc


def test_rates_by_prefix_freeze_and_scale_and_the_longest_prefix_counts(recipe: Make) -> None:
    model = Recognizer(recipe().model_configuration(), 9)
    groups = parameter_groups(model, 1.0, {"encoder": 0.0, "encoder.stem": 0.5}, 0.1)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.5 if name.startswith("encoder.stem.") else None if name.startswith("encoder.") else 1.0
        assert rates.get(id(parameter)) == expected, name
        assert parameter.requires_grad == (expected is not None)


def test_biases_and_norms_are_not_decayed(recipe: Make) -> None:
    model = Recognizer(recipe().model_configuration(), 9)
    decays = {
        id(parameter): group["weight_decay"] for group in parameter_groups(model, 1.0, {}, 0.1) for parameter in group["params"]
    }
    vectors = [parameter for module in model.modules() for parameter in module.parameters(recurse=False) if parameter.dim() < 2]
    assert vectors
    assert {decays[id(parameter)] for parameter in vectors} == {0.0}
    linear = [module.weight for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert linear
    assert {decays[id(parameter)] for parameter in linear} == {0.1}


def test_a_prefix_that_names_nothing_is_refused(recipe: Make) -> None:
    model = Recognizer(recipe().model_configuration(), 9)
    with pytest.raises(TrainingError, match="encoderr"):
        parameter_groups(model, 1.0, {"encoderr": 0.1}, 0.1)


def test_rows_that_are_hastened_move_as_by_a_rate_of_their_own() -> None:
    def run(rate: float, factor: float | None) -> torch.Tensor:
        torch.manual_seed(0)
        table = torch.nn.Embedding(6, 4)
        optimizer = torch.optim.AdamW([{"params": table.parameters(), "weight_decay": 0.0}], lr=rate)
        if factor is not None:
            hasten_rows(optimizer, table.weight, slice(4, 6), factor)
        for step in range(3):
            # The same gradients whatever the weights have become.
            gradient = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
            table.weight.grad = gradient
            optimizer.step()
        return table.weight.detach()

    hastened = run(1e-3, 30.0)
    torch.testing.assert_close(hastened[:4], run(1e-3, None)[:4])
    torch.testing.assert_close(hastened[4:], run(3e-2, None)[4:])
