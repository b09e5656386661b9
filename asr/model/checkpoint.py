"""A model on disk: a folder with ``model.safetensors``, ``config.yaml``, ``tokens.txt`` and a model card."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asr import configuration
from asr.configuration import StrictModel
from asr.exceptions import CheckpointError
from asr.model.configuration import ModelConfiguration
from asr.model.precision import Precision, quantize, to_bfloat16
from asr.model.recognizer import Recognizer
from asr.model.storage import Storage, fits, pack, unpack, write_tensors
from asr.text.tokenizer import BytePairTokenizer, CharacterTokenizer, read_tokens, write_tokens

WEIGHTS, CONFIGURATION, TOKENS, CARD = "model.safetensors", "config.yaml", "tokens.txt", "README.md"


# Other kinds of checkpoint folders, and what they are for.
_OTHERS = {
    "draft": "draft for a recogniser's decoder; name it in the recogniser's config.yaml",
    "language_model": "language model and no recogniser; give it as --language-model",
    "punctuation": "punctuation model and no recogniser; name it in a recogniser's config.yaml",
    "text_to_encoder": "text-to-encoder network and no recogniser; name it as data.text.network in a recipe",
}


@dataclass(frozen=True)
class Checkpoint:
    """A model and its tokenizer, as a folder holds them."""

    model: Recognizer
    tokenizer: CharacterTokenizer | BytePairTokenizer
    folder: Path | None = None
    precision: Precision = "float32"

    @property
    def ctc_tokenizer(self) -> CharacterTokenizer | BytePairTokenizer:
        """Tokenizer of the CTC head: the decoder's, unless the head has characters of its own."""
        characters = self.model.configuration.ctc_characters
        return self.tokenizer if characters is None else CharacterTokenizer.of(characters)


class Configured(Protocol):
    """A model that knows what it was made from."""

    @property
    def configuration(self) -> StrictModel:
        """What ``config.yaml`` holds."""

    def state_dict(self) -> dict[str, Any]:
        """Weights by name."""


class Storable(Protocol):
    """A recogniser's checkpoint, or a language model's."""

    @property
    def model(self) -> Configured:
        """The model."""

    @property
    def tokenizer(self) -> CharacterTokenizer | BytePairTokenizer:
        """What its tokens are."""


Model = TypeVar("Model", bound=nn.Module)


def save(
    checkpoint: Storable,
    folder: Path,
    card: str,
    storage: Storage = "float32",
) -> None:
    """Write a checkpoint folder.

    Args:
        checkpoint: what to write.
        folder: made if needed.
        card: text of the model card: data, figures, licence.
        storage: type of the weights on disk; ``int8`` and ``int6`` quantise matrices and keep the rest in float16.
    """
    save_model(checkpoint.model, folder, card, storage)
    write_tokens(checkpoint.tokenizer.tokens, folder / TOKENS)


def save_model(model: Configured, folder: Path, card: str, storage: Storage) -> None:
    """Write the folder of a model that has no tokens of its own: see ``save``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    write_tensors(pack(weights, storage), folder / WEIGHTS, metadata={"format": "pt"})
    configuration.dump(model.configuration, folder / CONFIGURATION)
    (folder / CARD).write_text(card, encoding="utf-8")


def load(folder: Path, device: torch.device | str = "cpu", precision: Precision = "float32") -> Checkpoint:
    """Read a checkpoint folder; the model is in evaluation mode.

    Args:
        folder: with the files that ``save`` writes.
        device: where to compute.
        precision: of the computation, whatever the storage; only a float32 model can be trained or saved again.

    Raises:
        CheckpointError: a file is missing or does not fit the configuration.
        ConfigurationError: the configuration is not valid.
    """
    folder = Path(folder)
    settings, tokenizer = describe(folder)
    model = filled(folder, lambda: Recognizer(settings, len(tokenizer)), precision)
    return Checkpoint(model.eval().to(device), tokenizer, folder, precision)


def describe(folder: Path) -> tuple[ModelConfiguration, CharacterTokenizer | BytePairTokenizer]:
    """Configuration and tokenizer of a recogniser's checkpoint folder, without its weights.

    Raises:
        CheckpointError: a file is missing, or it is a language model's.
        ConfigurationError: the configuration is not valid.
    """
    if (folder / CONFIGURATION).is_file() and (other := kind(folder)) in _OTHERS:
        raise CheckpointError(f"{folder}: is a {_OTHERS[other]}.")
    check_files(folder)
    settings = configuration.load(folder / CONFIGURATION, ModelConfiguration)
    return settings, read_tokens(folder / TOKENS, settings.tokenizer)


def check_files(folder: Path, tokens: bool = True) -> None:
    """Refuse what is not a checkpoint folder.

    Args:
        folder: with the files that ``save`` writes.
        tokens: whether there are tokens among them.

    Raises:
        CheckpointError: a file is missing.
    """
    for name in (CONFIGURATION, WEIGHTS, *([TOKENS] if tokens else [])):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: is not a checkpoint, {name} is missing; give a folder with all of its files.")


def kind(folder: Path) -> str:
    """What a checkpoint folder holds: its configuration's ``kind`` (``language_model``, ``punctuation``), or a ``recognizer``."""
    text = (folder / CONFIGURATION).read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^kind: (\w+)\s*$", text, re.MULTILINE)
    return found[1] if found else "recognizer"


def filled(folder: Path, make: Callable[[], Model], precision: Precision = "float32") -> Model:
    """A model with the weights of a folder.

    Args:
        folder: with ``model.safetensors``.
        make: makes the model.
        precision: of a recogniser or its draft; others compute in float32.

    Raises:
        CheckpointError: the weights cannot be read or are of another model.
    """
    # Parameters are made without memory and without random numbers, then take the file's tensors as they are.
    with torch.device("meta"), _NoInitialization():
        model = make()
    try:
        packed = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: cannot be read ({error}); copy or download it again.") from error
    mistakes = _mismatch(model.state_dict(), packed)
    if mistakes:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit {CONFIGURATION} ({mistakes}); use files of one checkpoint.")
    if precision == "int8":
        quantize(model, packed)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.view(shapes[name]) for name, value in unpack(packed).items()}, assign=True)
    if precision == "bfloat16":
        to_bfloat16(model)
    return model


class _NoInitialization(TorchFunctionMode):
    """Leaves new parameters as they are: on the meta device random numbers, which nobody reads, import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _mismatch(expected: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected and not name.endswith(".scale")]
    shapes = [name for name, value in expected.items() if name in given and not fits(given, name, value.shape)]
    parts = [
        f"{word} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for word, names in (("without", missing), ("unknown", extra), ("other shape", shapes))
        if names
    ]
    return "; ".join(parts)
