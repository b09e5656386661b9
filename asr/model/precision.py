"""Arithmetic of a loaded model: float32, bfloat16, or linear layers in eight bits and attention in sixteen.

In eight bits a weight matrix has one scale for each row (as ``storage.pack`` stores it), and every position's vector
is brought to eight bits by its own largest value when it arrives. Sums are exact integers. A position therefore gets
the same result whatever stands beside it in the batch, which one scale for the whole batch would not give.
What comes to a layer must not differ in its last bit with the batch either, for rounding would make that a step: on a
processor the encoder, cross-attention and the non-autoregressive decoder therefore go utterance by utterance, without
padding (what that decoder is told of sounds by integrate-and-fire aside). Greedy texts of 100 utterances were the same in
batches of 1, 4 and 16; before, 6 of the 24 shortest were other texts in a batch of 16. Their log-probabilities may still
differ in the last digits, by the order in which a processor sums. A token that is read after guesses is attended from alone as
well (``attention.FEW``): of 100 utterances no text was another with guesses; before, 2 of 30.

Attention's products are then in bfloat16 where the processor multiplies in it and there are ``attention.LONG`` positions
or more, in float32 elsewhere, so that processors may write other texts (12 of 50 differed, with as many errors).
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from asr.exceptions import ConfigurationError
from asr.model.attention import MultiHeadAttention
from asr.model.device import has_bfloat16_units
from asr.model.recognizer import Recognizer
from asr.model.storage import eight_bits

Precision = Literal["float32", "bfloat16", "int8"]
TrainingPrecision = Literal["float32", "bfloat16"]
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
_ENGINE = "fbgemm"
_FEW = 1 << 14


def choose(precision: str, device: str) -> Precision:
    """What ``auto`` is in transcription: on a processor int8 where FBGEMM has kernels for it (x86 with AVX2), otherwise
    float32; on a GPU bfloat16 where it multiplies in it (compute capability 8), otherwise float32.

    Raises:
        ConfigurationError: the name is unknown, or the device cannot compute in it.
    """
    eight_bits = device == "cpu" and _ENGINE in torch.backends.quantized.supported_engines
    if precision == "auto":
        if device == "cpu":
            return "int8" if eight_bits else "float32"
        return choose_for_training(precision, device)
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision '{precision}' is unknown; give one of {', '.join(PRECISIONS)}.")
    if precision == "int8" and not eight_bits:
        reason = "only computed on a CPU" if device != "cpu" else "not computed on this processor"
        raise ConfigurationError(f"precision 'int8' is {reason}; give auto, float32 or bfloat16.")
    return cast(Precision, precision)


def choose_for_training(precision: str, device: str) -> TrainingPrecision:
    """What ``auto`` is in training: bfloat16 where the device multiplies in it, otherwise float32.

    Args:
        precision: auto, float32 or bfloat16.
        device: ``cpu`` or ``cuda``.
    """
    if precision == "auto":
        return "bfloat16" if has_bfloat16_units(device) else "float32"
    return cast(TrainingPrecision, precision)


class QuantizedLinear(nn.Module):
    """A linear layer with weights and inputs in eight bits; for inference on a CPU.

    Args:
        rows: int8 (outputs, inputs).
        scale: float32 (outputs,).
        bias: float32 (outputs,) or None.
    """

    bias: Tensor | None

    def __init__(self, rows: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("bias", None if bias is None else bias.float(), persistent=False)
        # Without VNNI the kernel adds pairs of products in 16 bits, which inputs of 8 bits would overflow.
        self.steps = 127 if torch.cpu._is_vnni_supported() else 63
        zeros = torch.zeros(len(rows), dtype=torch.int64)
        matrix = torch._make_per_channel_quantized_tensor(rows.contiguous(), scale.double(), zeros, 0)
        before = torch.backends.quantized.engine
        try:
            torch.backends.quantized.engine = _ENGINE
            self.packed = torch.ops.quantized.linear_prepack(matrix, None)
        finally:
            torch.backends.quantized.engine = before

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), float32."""
        # Two reductions and no copy of many inputs: the norm of infinite order is twenty times slower. Few are copied sooner.
        if inputs.numel() < _FEW:
            largest = inputs.abs().amax(-1, keepdim=True)
        else:
            largest = torch.maximum(inputs.amax(-1, keepdim=True), -inputs.amin(-1, keepdim=True))
        largest = largest.clamp_(min=1e-12)
        outputs: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            inputs / largest, 1 / self.steps, self.steps + 1, self.packed
        )
        return outputs.mul_(largest) if self.bias is None else torch.addcmul(self.bias, outputs, largest)


class QuantizedEmbedding(nn.Module):
    """An embedding whose rows stay in eight bits."""

    rows: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("scale", scale[:, None].float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (...) -> float32 (..., width)."""
        return self.rows[tokens] * self.scale[tokens]


def quantize(model: nn.Module, stored: dict[str, Tensor]) -> None:
    """Replace every linear layer, and a recogniser's token embedding and output layer, by their eight-bit form.

    Args:
        model: its own weights are not read.
        stored: weights by name, as a file holds them; those that are used are taken out.
    """

    def take(name: str) -> tuple[Tensor, Tensor]:
        return eight_bits(stored.pop(name), stored.pop(f"{name}.scale", None))

    def linear(*names: str) -> QuantizedLinear:
        parts = [take(f"{name}.weight") for name in names]
        biases = [stored.pop(f"{name}.bias", None) for name in names]
        sizes = [len(rows) for rows, _ in parts]
        bias = None
        if any(each is not None for each in biases):
            given = zip(biases, sizes, strict=True)
            bias = torch.cat([torch.zeros(size) if each is None else each.float() for each, size in given])
        return QuantizedLinear(torch.cat([rows for rows, _ in parts]), torch.cat([scale for _, scale in parts]), bias)

    for name, module in list(model.named_modules()):
        if isinstance(module, MultiHeadAttention):
            # One product for what has the same inputs, so that these are brought to eight bits once.
            parts = ("query", "key", "value") if name.endswith("self_attention") else ("key", "value")
            module.joint = linear(*(f"{name}.{part}" for part in parts))
            for part in parts:
                delattr(module, part)
        for child, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(module, child, linear(f"{name}.{child}" if name else child))
    # Attention itself stays in floating point, in half as many bytes where the processor multiplies in them.
    long_type = torch.bfloat16 if has_bfloat16_units("cpu") else None
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            module.long_type = long_type
    if isinstance(model, Recognizer) and model.decoder is not None:
        rows, scale = take("decoder.token_embedding.weight")
        model.decoder.token_embedding = QuantizedEmbedding(rows, scale)
        model.decoder.output = QuantizedLinear(rows, scale, None)


def to_bfloat16(model: nn.Module) -> None:
    """Another model, or of a recogniser encoder, decoder and CTC head, in bfloat16; features and scores stay in float32."""
    for part in (model.encoder, model.decoder, model.ctc) if isinstance(model, Recognizer) else (model,):
        if part is not None:
            part.to(torch.bfloat16)
