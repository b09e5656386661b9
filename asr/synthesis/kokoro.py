"""Kokoro, a small text-to-speech model (hexgrad/Kokoro-82M, after StyleTTS 2: Y. Li et al., NeurIPS 2023), as ONNX.

The published quantised file computes its convolutions in 8-bit integers, which is slow on a CPU. They are turned back to
32-bit ones with the same weights, in memory, which is about twice as fast and changes nothing that is heard.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.exceptions import ConfigurationError

SAMPLE_RATE = 24_000
WIDTH = 256
"""Width of a style; its first half is the timbre, its second half decides durations and melody."""
_LONGEST = 510  # phonemes the model can read at once
_LAST_FRAMES = 12  # of 25 ms, instead of half a second of silence after the speech
_PAD = 0

Voice = NDArray[np.float32]
"""Styles (phonemes, 256): one for each number of phonemes that a text may have."""


class Kokoro:
    """The model with its vocabulary, which lies beside it as ``tokenizer.json``.

    Args:
        path: the ONNX file with the inputs ``input_ids``, ``style`` and ``speed``.
        threads: threads of one computation.

    Raises:
        ConfigurationError: a file or library is missing, or is not what it should be.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ConfigurationError(f"Kokoro needs {error.name}; install it with pip install 'asr[synthesis]'.") from error
        vocabulary = path.with_name("tokenizer.json")
        try:
            self._numbers: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["model"]["vocab"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{vocabulary}: is no vocabulary of Kokoro; put its tokenizer.json there.") from error
        try:
            graph = onnx.load(str(path))
        except Exception as error:
            raise ConfigurationError(f"{path}: cannot be read as an ONNX model; give Kokoro's .onnx file.") from error
        float_convolutions(graph)
        _limit_durations(graph, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        # Sleeping threads instead of spinning ones: the machine is shared.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def speak(self, phonemes: str, voice: Voice, speed: float = 1.0) -> NDArray[np.float32]:
        """Say phonemes; those the model does not know are left out.

        Returns:
            Samples at 24 kHz, float32 (samples,), with some silence before and after the speech.

        Raises:
            ConfigurationError: there are no phonemes, or more than the model can read at once.
        """
        tokens = [self._numbers[phoneme] for phoneme in phonemes if phoneme in self._numbers]
        if not 0 < len(tokens) <= min(_LONGEST - 1, len(voice) - 1):
            raise ConfigurationError(f"{len(tokens)} phonemes cannot be spoken at once; give 1 to {_LONGEST - 1}.")
        longest = np.full(len(tokens) + 2, np.iinfo(np.int64).max)
        # Only the silence at the end: with a short one before it, the model swallows the first consonant.
        longest[-1] = _LAST_FRAMES
        inputs = {
            "input_ids": np.array([[_PAD, *tokens, _PAD]], dtype=np.int64),
            "style": voice[len(tokens)][None],
            "speed": np.array([speed], dtype=np.float32),
            "longest": longest,
        }
        return np.asarray(self._session.run(None, inputs)[0], dtype=np.float32).reshape(-1)


def read_voices(folder: Path, names: Sequence[str] = ()) -> dict[str, Voice]:
    """Styles of the voices in a folder by name, which is the file's without ``.bin``.

    Args:
        names: the voices to read; none: all.

    Raises:
        ConfigurationError: a voice is not there, or its file is no table of styles.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.bin"))}
    missing = [name for name in names if name not in found]
    if missing or not found:
        raise ConfigurationError(
            f"{folder}: holds no voice {', '.join(missing) or '(.bin)'}; it has {', '.join(found) or 'none'}."
        )
    voices = {}
    for name in names or found:
        values = np.fromfile(found[name], dtype=np.float32)
        if not len(values) or len(values) % WIDTH or not np.isfinite(values).all():
            raise ConfigurationError(f"{found[name]}: is no table of {WIDTH} float32 values a row; restore the file.")
        voices[name] = values.reshape(-1, WIDTH)
    return voices


def blend(first: Voice, second: Voice, share: float) -> Voice:
    """A voice between two: ``share`` of the second."""
    return np.asarray((1 - share) * first + share * second, dtype=np.float32)


def with_timbre(voice: Voice, timbre: Voice) -> Voice:
    """A voice that speaks like the first and sounds like the second."""
    return np.concatenate((timbre[:, : WIDTH // 2], voice[:, WIDTH // 2 :]), axis=1)


def float_convolutions(model: Any) -> None:
    """Replace each dynamically quantised convolution of an ONNX model by one in float32 with the same weights.

    The pattern is onnxruntime's dynamic quantisation: quantised input -> ``ConvInteger`` -> (+ quantised bias) ->
    ``Cast`` -> ``Mul`` by the scales.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    replaced: dict[str, Any] = {}  # by the name of the product's output
    for node in graph.node:
        if node.op_type != "ConvInteger":
            continue
        signal, weight, _, zero = node.input
        after = consumers[node.output[0]][0]
        bias = []
        if after.op_type == "Add":
            name = next(name for name in after.input if name != node.output[0])
            while name not in constants:
                name = producer[name].input[0]
            bias = [name]
            after = consumers[after.output[0]][0]
        product = consumers[after.output[0]][0]
        scales = next(name for name in product.input if name != after.output[0])
        scale = next(name for name in producer[scales].input if name in constants)
        value = numpy_helper.to_array
        weights = (value(constants[weight]).astype(np.float32) - value(constants[zero])) * value(constants[scale])
        graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), f"{node.output[0]}_weights"))
        convolution = helper.make_node(
            "Conv", [producer[signal].input[0], f"{node.output[0]}_weights", *bias], list(product.output)
        )
        convolution.attribute.extend(node.attribute)
        replaced[product.output[0]] = convolution

    nodes = [replaced.get(node.output[0], node) for node in graph.node]
    kept = -1
    while kept != len(nodes):
        kept = len(nodes)
        used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
        nodes = [node for node in nodes if any(name in used for name in node.output if name)]
    del graph.node[:]
    graph.node.extend(nodes)
    constants_used = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants_used)


def _limit_durations(model: Any, path: Path) -> None:
    """Give the model an input ``longest``, int64 (phonemes): the frames of each phoneme at most.

    Without it a sixth of the sound of a short sentence, and of the time to make it, is silence at its end.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    consumers = {name: node for node in graph.node for name in node.input}
    node = next((node for node in graph.node if node.op_type == "Round"), None)
    while node is not None and node.op_type in ("Round", "Clip", "Cast"):
        node = consumers.get(node.output[0])
    if node is None or node.op_type != "Gather":
        raise ConfigurationError(f"{path}: has no durations where Kokoro 1.0 has them; give the ONNX file of Kokoro 1.0.")
    name = node.output[0]
    node.output[0] = f"{name}_unlimited"
    graph.input.append(helper.make_tensor_value_info("longest", TensorProto.INT64, ["sequence_length"]))
    position = next(index for index, each in enumerate(graph.node) if each is node or each.output[0] == node.output[0])
    graph.node.insert(position + 1, helper.make_node("Min", [f"{name}_unlimited", "longest"], [name]))
