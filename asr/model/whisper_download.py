"""Whisper's official files by name, with their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from asr.exceptions import CheckpointError

# As openai-whisper publishes them: the folder in a model's address is the file's SHA-256.
_MODEL_ADDRESS = "https://openaipublic.azureedge.net/main/whisper/models/{checksum}/{name}.pt"
MODELS = {
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v1": "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    "large-v3-turbo": "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
}
# A .pt has no vocabulary of its own; these are the files that the original reads it from.
_VOCABULARY_ADDRESS = "https://raw.githubusercontent.com/openai/whisper/v20250625/whisper/assets/{name}"
VOCABULARIES = {
    "gpt2.tiktoken": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "multilingual.tiktoken": "b34b360dbb493e781e479794586d661700670d65564001f23024971d1f2fa126",
}


def cache_folder() -> Path:
    """Where downloads are kept: ``asr`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"


def fetch_model(name: str, folder: Path | None = None) -> tuple[Path, Path]:
    """Download a model and its vocabulary, unless they are there already.

    Args:
        name: one of ``MODELS``.
        folder: where they go; None: ``cache_folder``.

    Returns:
        The ``.pt`` and the ``.tiktoken`` file.

    Raises:
        CheckpointError: the name is unknown, the address cannot be reached, or what came is another file.
    """
    if name not in MODELS:
        raise CheckpointError(f"'{name}': is neither a file nor a Whisper model; give a path or one of {', '.join(MODELS)}.")
    folder = folder or cache_folder()
    vocabulary = "gpt2.tiktoken" if name.endswith(".en") else "multilingual.tiktoken"
    pieces = fetch(_VOCABULARY_ADDRESS.format(name=vocabulary), VOCABULARIES[vocabulary], folder / vocabulary)
    address = _MODEL_ADDRESS.format(checksum=MODELS[name], name=name)
    return fetch(address, MODELS[name], folder / f"{name}.pt"), pieces


def fetch(address: str, checksum: str, target: Path) -> Path:
    """Download one file; ``target`` is whole or not there at all.

    Raises:
        CheckpointError: the address cannot be reached, the SHA-256 is another, or the place cannot be written to.
    """
    if target.is_file() and _sha256(target) == checksum:
        return target
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(address, timeout=60) as source, unfinished.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (urllib.error.URLError, OSError) as error:
        unfinished.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(f"{address}: cannot be downloaded ({reason}); try again, or import a local file.") from error
    found = _sha256(unfinished)
    if found != checksum:
        unfinished.unlink()
        raise CheckpointError(f"{address}: is not the published file (SHA-256 {found}); try again, or import a local file.")
    unfinished.replace(target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
