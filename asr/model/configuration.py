"""What a model is: one configuration from the front end to the output, stored with every checkpoint."""

from __future__ import annotations

import itertools
import re
from typing import Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from asr.audio.features import FilterbankConfiguration
from asr.configuration import StrictModel
from asr.text.tokenizer import TokenizerConfiguration

NormPlacement = Literal["before", "after", "batch"]


class EncoderConfiguration(StrictModel):
    """The encoder: a convolutional stem that shortens the features in time, then a stack of blocks."""

    block: Literal["transformer", "conformer"] = "transformer"
    stem: Literal["conv2d", "conv1d"] = Field(
        "conv2d", description="conv2d: two strided 2-D convolutions, 4x shorter; conv1d: Whisper's, 2x shorter"
    )
    stem_channels: int | None = Field(None, ge=1, description="channels of conv2d's convolutions, the width if left out")
    layers: int = Field(6, ge=1)
    width: int = Field(256, ge=2)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(1024, ge=1)
    activation: Literal["relu", "gelu", "swish"] = "relu"
    norm: NormPlacement = "before"
    dropout: float = Field(0.1, ge=0, lt=1)
    kernel: int = Field(15, ge=1, description="width of the Conformer's depth-wise convolution, odd")
    scale_embedding: bool = Field(True, description="multiply the stem's output by sqrt(width), as the original does")
    minimum_seconds: float = Field(0.0, ge=0, description="shorter audio is followed by silence up to this length")
    trailing_seconds: float = Field(0.0, ge=0, description="silence added after every utterance")

    @model_validator(mode="after")
    def _divisible(self) -> EncoderConfiguration:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd, so that it has a centre")
        return self


class DecoderStackConfiguration(StrictModel):
    """What every decoder's stack of layers has."""

    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(1024, ge=1)
    activation: Literal["relu", "gelu", "swish"] = "relu"
    norm: NormPlacement = "before"
    dropout: float = Field(0.1, ge=0, lt=1)
    maximum_length: int = Field(448, ge=2, description="longest sequence, prompt included; learned positions have no more")
    scale_embedding: bool = True
    suppressed: tuple[int, ...] = Field((), description="tokens that are never emitted; in YAML also ranges, as '50257-51863'")
    tokens_per_second: float = Field(30.0, gt=0, description="bound of the search: at most so many tokens a second")

    @field_validator("suppressed", "suppressed_at_start", mode="before", check_fields=False)
    @classmethod
    def _unfold(cls, tokens: Any) -> Any:
        if not isinstance(tokens, list | tuple):
            return tokens
        unfolded: list[Any] = []
        for token in tokens:
            ends = re.fullmatch(r"(\d{1,7})-(\d{1,7})", token) if isinstance(token, str) else None
            unfolded += range(int(ends[1]), int(ends[2]) + 1) if ends else [token]
        return unfolded

    @field_serializer("suppressed", "suppressed_at_start", when_used="json", check_fields=False)
    def _fold(self, tokens: tuple[int, ...]) -> list[int | str]:
        folded: list[int | str] = []
        # Tokens that follow one another keep their distance to their place.
        for _, run in itertools.groupby(enumerate(tokens), key=lambda pair: pair[1] - pair[0]):
            members = [token for _, token in run]
            folded += [f"{members[0]}-{members[-1]}"] if len(members) > 2 else members
        return folded


class DecodingConfiguration(StrictModel):
    """The search that suits a model best, by measurement; every choice can be overruled when decoding."""

    decoder: Literal["autoregressive", "joint", "rescoring", "nonautoregressive", "ctc", "ctc-beam"] | None = None
    beam_size: int | None = Field(None, ge=1)
    ctc_weight: float | None = Field(None, ge=0, le=1)
    length_bonus: float | None = None
    length_normalization: float | None = Field(None, ge=0)
    stop_threshold: float | None = Field(None, ge=0)
    language_model: str | None = Field(None, description="in the checkpoint's folder; several, by commas, are mixed")
    language_model_weight: float | None = Field(None, ge=0)
    latin_floor: float | None = Field(
        None,
        le=0,
        description="least log-probability of a token of Latin letters under the language model, for languages without",
    )


class ConfidenceConfiguration(StrictModel):
    """From a word's log-odds under the decoder to those of its being right; ``asr calibrate`` measures both."""

    slope: float = Field(1.0, gt=0)
    offset: float = 0.0


class AlignmentHead(StrictModel):
    """A head of the decoder's cross-attention that looks at where a token is said."""

    layer: int = Field(ge=0, description="from 0, at the bottom")
    head: int = Field(ge=0, description="from 0")
    token: Literal["written", "read"] = Field(
        "written", description="which token: the one that the step writes, or the one that it has just read"
    )


class DecoderConfiguration(DecoderStackConfiguration):
    """The autoregressive decoder."""

    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    prompt: tuple[str, ...] = Field(("<sos>",), min_length=1, description="tokens that every sequence starts with")
    suppressed_at_start: tuple[int, ...] = Field((), description="tokens that are not emitted first")
    no_speech_threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="probability of the stop token at the start from which on the text is empty, and below which it is not; "
        "null: the text is empty where no other has a better score",
    )
    alignment_heads: tuple[AlignmentHead, ...] = Field(
        (), description="heads that say when each word was said; if left out the CTC head, or without one the last layer's"
    )

    @model_validator(mode="after")
    def _has_heads(self) -> DecoderConfiguration:
        for each in self.alignment_heads:
            if each.layer >= self.layers or each.head >= self.heads:
                raise ValueError(
                    f"alignment_heads has head {each.head} of layer {each.layer}, but there are {self.heads} heads in "
                    f"{self.layers} layers; count both from 0"
                )
        return self

    def aligning(self) -> tuple[AlignmentHead, ...]:
        """The heads that say when each word was said: those that are named, or all of the last layer.

        The last layer is the nearest to what is written, and its heads look at the token to be written in all models that
        were measured; further down some look at the token that was read.
        """
        return self.alignment_heads or tuple(AlignmentHead(layer=self.layers - 1, head=head) for head in range(self.heads))


LengthWay = Literal["predictor", "row", "ctc", "alignment"]


class NonautoregressiveConfiguration(DecoderStackConfiguration):
    """The non-autoregressive decoder, which answers at all positions of a row at once."""

    mask: str = Field("<sos>", description="token that stands where nothing is known yet")
    lengths: tuple[LengthWay, ...] = Field(
        ("predictor", "ctc"),
        min_length=1,
        description="how the row's length is found, the first unless another is asked for; predictor: from the encoder's "
        "output; row: as long as the bound, the text ends at the first stop token; ctc: that of the CTC head's greedy path; "
        "alignment: of that path's tokens, with places beside those that are not sure, read as CTC's path is",
    )
    acoustic_embedding: bool = Field(
        False,
        description="add what the encoder says at each place, by integrate-and-fire or its mean, to the row's embeddings",
    )


class ModelConfiguration(StrictModel):
    """The whole model; ``width`` of the decoder is the encoder's."""

    language: str = Field("en", description="language of the text, or 'multilingual'")
    front_end: FilterbankConfiguration = Field(default_factory=FilterbankConfiguration)  # type: ignore[arg-type]
    tokenizer: TokenizerConfiguration = Field(default_factory=TokenizerConfiguration)  # type: ignore[arg-type]
    encoder: EncoderConfiguration = Field(default_factory=EncoderConfiguration)  # type: ignore[arg-type]
    decoder: DecoderConfiguration | None = Field(default_factory=DecoderConfiguration)  # type: ignore[arg-type]
    confidence: ConfidenceConfiguration = Field(default_factory=ConfidenceConfiguration)  # type: ignore[arg-type]
    nonautoregressive: NonautoregressiveConfiguration | None = Field(None, description="a second decoder, all tokens at once")
    ctc: bool = Field(True, description="whether a CTC head stands on the encoder")
    decoding: DecodingConfiguration = Field(default_factory=DecodingConfiguration)  # type: ignore[arg-type]
    ctc_characters: str | None = Field(
        None, description="characters of the CTC head, where it has a vocabulary of its own beside the decoder's; a space is one"
    )
    punctuation: str | None = Field(
        None, description="folder beside the weights with a model of Mandarin punctuation, which transcripts get"
    )

    draft: str | None = Field(
        None, description="folder beside the weights with a draft of the decoder, which makes greedy search faster"
    )

    def files(self) -> tuple[str, ...]:
        """Names of the files and folders that a checkpoint of this configuration has beside its weights."""
        named = [*(self.decoding.language_model or "").split(","), self.punctuation or "", self.draft or ""]
        return tuple(name.strip() for name in named if name.strip())

    def without_files(self) -> ModelConfiguration:
        """The same model in a folder of its own, which has not got the files that are beside this one's weights."""
        decoding = self.decoding.model_copy(update={"language_model": None})
        return self.model_copy(update={"decoding": decoding, "punctuation": None, "draft": None})

    @model_validator(mode="after")
    def _has_output(self) -> ModelConfiguration:
        if self.decoder is None and self.nonautoregressive is None and not self.ctc:
            raise ValueError("a model needs a decoder, a CTC head, or both")
        for decoder in (self.decoder, self.nonautoregressive):
            if decoder is not None and self.encoder.width % decoder.heads:
                raise ValueError(f"width {self.encoder.width} cannot be divided among {decoder.heads} decoder heads")
        by_ctc = [
            way for way in (self.nonautoregressive.lengths if self.nonautoregressive else ()) if way in ("ctc", "alignment")
        ]
        if by_ctc and not self.ctc:
            raise ValueError(f"nonautoregressive.lengths has {by_ctc[0]}, but the model has no CTC head; set ctc or leave it out")
        if by_ctc and self.ctc_characters is not None:
            raise ValueError(
                f"nonautoregressive.lengths has {by_ctc[0]}, but the CTC head writes other tokens; leave one of them out"
            )
        return self
