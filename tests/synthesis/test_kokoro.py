from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr.exceptions import ConfigurationError
from asr.synthesis.kokoro import WIDTH, Kokoro, blend, float_convolutions, read_voices, with_timbre
from asr.synthesis.pronunciation import LETTERS


def test_voices_are_read_and_mixed(tmp_path: Path) -> None:
    values = {name: np.random.default_rng(seed).normal(size=(5, 1, WIDTH)).astype(np.float32) for seed, name in enumerate("ab")}
    for name, value in values.items():
        value.tofile(tmp_path / f"{name}.bin")
    voices = read_voices(tmp_path)
    np.testing.assert_array_equal(voices["a"], values["a"][:, 0])
    np.testing.assert_allclose(blend(voices["a"], voices["b"], 0.25), 0.75 * voices["a"] + 0.25 * voices["b"], rtol=1e-6)
    mixed = with_timbre(voices["a"], voices["b"])
    np.testing.assert_array_equal(mixed[:, :128], voices["b"][:, :128])
    np.testing.assert_array_equal(mixed[:, 128:], voices["a"][:, 128:])
    with pytest.raises(ConfigurationError, match="holds no voice c; it has a, b"):
        read_voices(tmp_path, ["c"])
    (tmp_path / "a.bin").write_bytes(b"123")
    with pytest.raises(ConfigurationError, match=r"a\.bin"):
        read_voices(tmp_path)


def test_float_convolutions_compute_what_the_quantised_ones_do(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    generator = np.random.default_rng(0)
    make = onnx.helper.make_node
    weights = {
        "first": generator.normal(size=(6, 4, 3)).astype(np.float32),
        "bias": generator.normal(size=6).astype(np.float32),
        "second": generator.normal(size=(2, 6, 3)).astype(np.float32),
    }
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["x", "first", "bias"], ["hidden"], name="one", dilations=[2], pads=[2, 2], kernel_shape=[3]),
            make("LeakyRelu", ["hidden"], ["active"], name="two"),
            make("Conv", ["active", "second"], ["y"], name="three", strides=[2], kernel_shape=[3]),
        ],
        "convolutions",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, "n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2, "m"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "float.onnx"))
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "quantized.onnx", op_types_to_quantize=["Conv"])
    quantized = onnx.load(str(tmp_path / "quantized.onnx"))
    assert sum(node.op_type == "ConvInteger" for node in quantized.graph.node) == 2
    before = quantized.SerializeToString()
    float_convolutions(quantized)
    assert not {node.op_type for node in quantized.graph.node} & {"ConvInteger", "DynamicQuantizeLinear", "Cast"}

    x = generator.normal(size=(1, 4, 50)).astype(np.float32)

    def run(data: bytes) -> np.ndarray:
        return np.asarray(onnxruntime.InferenceSession(data).run(None, {"x": x})[0])

    exact, integer, turned = run(model.SerializeToString()), run(before), run(quantized.SerializeToString())
    # Of the two roundings only the weights' is left.
    assert np.abs(turned - integer).max() < 0.05 * np.abs(exact).max()
    assert np.abs(turned - exact).mean() < np.abs(integer - exact).mean()


def test_letters_are_complete() -> None:
    assert sorted(LETTERS) == [chr(code) for code in range(ord("A"), ord("Z") + 1)]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = tmp_path / "kokoro.onnx"
    model.write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        Kokoro(model)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {"a": 1}}}')
    with pytest.raises(ConfigurationError, match=r"kokoro\.onnx"):
        Kokoro(model)


def test_mandarin_is_read_by_word_and_latin_by_letter_or_dictionary() -> None:
    pytest.importorskip("misaki.zh")
    from asr.synthesis.pronunciation import phonemes

    # 行 is read háng in 银行 and xíng in 行走.
    bank, walk = phonemes("银行"), phonemes("行走")
    assert "xa↗ŋ" in bank
    assert walk.startswith("ɕi↗ŋ")
    assert phonemes("你好，Python。") == "ni↓xau↓, pˈIθˌɑn."
    assert phonemes("CPU") == "sˈi pˈi jˈu"


def test_units_are_sounds_with_what_modifies_them() -> None:
    pytest.importorskip("misaki.zh")
    from asr.synthesis.pronunciation import units

    assert units("你好，Python。", "zh") == ("n", "i↓", "x", "a", "u↓", ",", "p", "I", "θ", "ɑ", "n")
    assert units("她 他", "zh") == ("tʰ", "a→", "|", "tʰ", "a→")
    assert units("Cats, and dogs!", "en") == ("k", "æ", "t", "s", ",", "æ", "n", "d", "|", "d", "ɔ", "ɡ", "z")
    # Neither is in the dictionaries as it stands here.
    assert units("waited cities", "en") == ("w", "A", "t", "ᵻ", "d", "|", "s", "ɪ", "ɾ", "i", "z")
    # What would be left out is not read at all.
    assert units("mantelish", "en") is None
    assert units("it cost $5", "en") is None
    assert units("résumé", "en") is None
    assert units("2026年", "zh") is None
    assert units("カラオケ", "zh") is None
    with pytest.raises(ConfigurationError, match="choose zh or en"):
        units("bonjour", "fr")
