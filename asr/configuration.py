"""Configuration, validated once at the door: strict models, YAML files and ``key=value`` overrides.

Every room declares its own part as a ``StrictModel`` beside the code that it configures; a recipe (``asr.training``)
and a checkpoint (``asr.model``) are compositions of them.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from asr.exceptions import ConfigurationError


class StrictModel(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Model = TypeVar("Model", bound=StrictModel)


def load(path: str | Path, kind: type[Model], overrides: list[str] | tuple[str, ...] = ()) -> Model:
    """Read a YAML file, apply ``key=value`` overrides (dotted keys, YAML values) and validate it.

    Raises:
        ConfigurationError: the file is missing or not YAML, an override has no ``=``, a key is unknown (the nearest
            known key is named) or a value is not valid.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigurationError(f"{path}: is not valid YAML ({detail}); correct the file.") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: does not hold a mapping of keys to values; start from a file in recipes/.")
    for override in overrides:
        _override(values, override)
    return validate(values, kind, str(path))


def validate(values: dict[str, Any], kind: type[Model], source: str) -> Model:
    """Validate a mapping; all mistakes are named in one sentence.

    Raises:
        ConfigurationError: as ``load``.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(_explain(kind, dict(mistake)) for mistake in error.errors())
        raise ConfigurationError(f"{source}: {mistakes}.") from error


def dump(settings: StrictModel, path: str | Path) -> None:
    """Write settings as YAML that ``load`` reads back to an equal value."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"override '{override}': has no '='; write key=value, for example training.epochs=3.")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigurationError(f"override '{override}': '{parent}' is a value, not a group of settings.")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override '{override}': the value is not valid YAML; quote it.") from error


def _explain(kind: type[BaseModel], mistake: dict[str, Any]) -> str:
    location = [str(part) for part in mistake["loc"]]
    key = ".".join(location)
    if mistake["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys(kind, location[:-1]), n=1, cutoff=0.4)
        hint = f", did you mean '{near[0]}'?" if near else ", remove it"
        return f"unknown key '{key}'{hint}"
    if mistake["type"] == "missing":
        return f"key '{key}' is missing, add it"
    message = mistake["msg"].removeprefix("Value error, ")
    return f"key '{key}': {message[:1].lower()}{message[1:]} (given {mistake['input']!r})" if key else message


def _keys(kind: type[BaseModel], location: list[str]) -> list[str]:
    """Known keys of the group at ``location``."""
    for part in location:
        field = kind.model_fields.get(part)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)
