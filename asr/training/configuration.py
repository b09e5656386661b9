"""A recipe: data, model and training, validated before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from asr import configuration, pretrained
from asr.audio.augmentation import AugmentationConfiguration, SpecAugmentConfiguration
from asr.configuration import StrictModel
from asr.exceptions import ConfigurationError
from asr.model.checkpoint import CONFIGURATION
from asr.model.configuration import ModelConfiguration
from asr.model.language_model import LanguageModelConfiguration
from asr.model.punctuation import PunctuationConfiguration
from asr.model.text_to_encoder import NetworkConfiguration

# One path may stand without brackets.
Paths = Annotated[tuple[str, ...], BeforeValidator(lambda paths: (paths,) if isinstance(paths, str) else paths)]


class SpokenTextConfiguration(StrictModel):
    """Text that the decoders learn from as if it were spoken."""

    sentences: Paths = Field(min_length=1, description="plain text or .gz, one sentence a line, written as the model shall write")
    network: str = Field(description="folder of asr train-text-to-encoder, learned with the encoder that is trained on")
    batches: int = Field(1, ge=1, description="of text in an optimiser's step, beside those of speech")
    batch_positions: int = Field(6000, ge=1, description="of the encoder, in a batch, padding included")
    confusion: float = Field(0.06, ge=0, le=1, description="share of the sounds that are heard for others, at most")
    residual: float = Field(0.6, ge=0, description="part of what the network does not explain of speech, at most")


class DataConfiguration(StrictModel):
    """What is trained and validated on, and how it is batched."""

    train: Paths = Field(min_length=1, description="manifests or csv/jsonl tables")
    validation: Paths = Field(min_length=1)
    validation_utterances: int | None = Field(None, ge=1, description="validate on the first so many after shuffling")
    batch_seconds: float = Field(240.0, gt=0, description="audio in a batch, padding included")
    minimum_seconds: float = Field(0.1, ge=0)
    maximum_seconds: float = Field(30.0, gt=0)
    workers: int = Field(2, ge=1, description="threads that read and augment audio ahead of use")
    nonspeech: float = Field(0.0, ge=0, le=0.5, description="share of utterances that are silence or noise without text")
    augmentation: AugmentationConfiguration = Field(default_factory=AugmentationConfiguration)  # type: ignore[arg-type]
    text: SpokenTextConfiguration | None = Field(
        None, description="beside the speech; needs an encoder whose imitated layers are not trained, as encoder_cache does"
    )


class OptimizationConfiguration(StrictModel):
    """The optimiser, its schedule and what is kept; of a recogniser and of a language model."""

    epochs: int = Field(50, ge=1)
    maximum_hours: float | None = Field(None, gt=0, description="stop after so much time, whole resumed runs together")
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the device has units for it, otherwise float32"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, description="peak rate")
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["inverse_square_root", "cosine"] = "inverse_square_root"
    warmup_steps: int = Field(1000, ge=0)
    clip: float = Field(5.0, gt=0, description="largest norm of the gradient")
    checkpoint_minutes: float = Field(10.0, gt=0, description="a checkpoint at least so often, besides each validation's")
    keep_best: int = Field(5, ge=1)


class ImitationConfiguration(StrictModel):
    """A teacher that hears the speech before augmentation disturbs it, and says what the decoder is to say of it.

    Where nobody speaks, the text alone is asked for; so it is of CTC and of the non-autoregressive decoder.
    """

    teacher: str = Field(description="checkpoint folder or embedded model, with the same front end, positions and tokens")
    share: float = Field(0.8, gt=0, le=1, description="of the decoder's loss: what the teacher says; the rest asks for the text")
    encoder_weight: float = Field(0.2, ge=0, description="of how far the encoder's output is from the teacher's, added")


class TrainingConfiguration(OptimizationConfiguration):
    """The objective of a recogniser and how it is optimised."""

    ctc_weight: float = Field(0.3, ge=0, le=1)
    nonautoregressive_weight: float = Field(1.0, ge=0, description="of the non-autoregressive decoder, added to the others")
    length_weight: float = Field(0.1, ge=0, description="of its length predictor, in its loss")
    unheard: float = Field(0.0, ge=0, lt=1, description="share of the tokens whose sound it is not given")
    misread: float = Field(0.0, ge=0, lt=1, description="largest share of CTC's text that it reads wrong, by alignment")
    imitation: ImitationConfiguration | None = None
    learning_rates: dict[str, float] = Field(
        default_factory=dict,
        description="factors by prefix of a parameter's name, 0 freezes; the longest prefix counts",
    )
    added_tokens_rate: float = Field(
        1.0,
        gt=0,
        description="factor for the embeddings of the tokens that asr adapt-vocabulary --merge has added",
    )
    accumulation: int = Field(1, ge=1, description="batches in an optimiser's step")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    encoder_cache: str | None = Field(
        None,
        description="folder to keep what the encoder's frozen layers say in, computed once; needs learning_rates: {encoder: 0}, "
        "beside which its last layers, as encoder.layers.5, may have other rates",
    )

    @field_validator("learning_rates")
    @classmethod
    def _not_negative(cls, rates: dict[str, float]) -> dict[str, float]:
        if any(rate < 0 for rate in rates.values()):
            raise ValueError("a learning rate's factor is not below 0")
        return rates


class Recipe(StrictModel):
    """Everything that ``asr train`` needs to know."""

    name: str
    output: str = Field(description="folder of the run: checkpoints, log, curves")
    initialize: str | None = Field(
        None, description="checkpoint folder or embedded model whose weights and vocabulary training starts from"
    )
    initialize_parts: dict[str, str] = Field(
        default_factory=dict,
        description="prefixes of parameters that start from other ones of ``initialize``, as nonautoregressive.layers: "
        "decoder.layers; empty: from random numbers; the longest prefix counts",
    )
    model: dict[str, Any] = Field(default_factory=dict, description="the model, or what changes of ``initialize``")
    data: DataConfiguration
    training: TrainingConfiguration = Field(default_factory=TrainingConfiguration)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _relative_to_here(self) -> Recipe:
        parent = self.initialize
        if parent is not None and not _is_model(parent):
            raise ValueError(
                f"initialize '{parent}' is neither a checkpoint folder nor an embedded model; import or train one first"
            )
        if self.initialize_parts and parent is None:
            raise ValueError("initialize_parts needs the checkpoint folder that the parts are of; set initialize")
        if self.data.text is not None and self.training.learning_rates.get("encoder") != 0:
            raise ValueError("data.text needs an encoder that is not trained; set learning_rates.encoder: 0")
        imitation = self.training.imitation
        if imitation is not None and not _is_model(imitation.teacher):
            raise ValueError(
                f"training.imitation.teacher '{imitation.teacher}' is neither a checkpoint folder nor an embedded model; "
                "give what the run is initialised from"
            )
        if imitation is not None and self.training.ctc_weight == 1:
            raise ValueError("training.imitation is of the autoregressive decoder; set training.ctc_weight below 1")
        if imitation is not None and (self.data.text is not None or self.training.encoder_cache is not None):
            raise ValueError("training.imitation needs speech to hear; drop data.text and training.encoder_cache")
        if self.training.encoder_cache is not None:
            if self.training.learning_rates.get("encoder") != 0:
                raise ValueError("training.encoder_cache needs an encoder that is not trained; set learning_rates.encoder: 0")
            if self.data.nonspeech or self.data.augmentation != AugmentationConfiguration():
                raise ValueError("training.encoder_cache needs audio that is the same in every epoch; drop augmentation")
        return self

    def model_configuration(self) -> ModelConfiguration:
        """The model: the parent's configuration, if there is a parent, with this recipe's changes.

        Raises:
            ConfigurationError: a key or value of the model is not valid.
        """
        values: dict[str, Any] = {}
        if self.initialize is not None:
            path = pretrained.find(self.initialize) / CONFIGURATION
            values = configuration.load(path, ModelConfiguration).without_files().model_dump(mode="json")
        merged = _merge(values, self.model)
        settings = configuration.validate(merged, ModelConfiguration, f"model of recipe {self.name}")
        weight = self.training.ctc_weight
        if (weight > 0) != settings.ctc and not (weight == 0):
            raise ConfigurationError(f"recipe {self.name}: training.ctc_weight is {weight}, but model.ctc is false; set one.")
        if weight < 1 and settings.decoder is None and (settings.ctc or settings.nonautoregressive is None):
            raise ConfigurationError(f"recipe {self.name}: the model has no decoder, set training.ctc_weight=1.")
        return settings


class SpeechConfiguration(StrictModel):
    """Speech that a text-to-encoder network learns from."""

    train: Paths = Field(min_length=1, description="manifests or csv/jsonl tables")
    hours: float = Field(10.0, gt=0, description="hear so much of it at most")
    maximum_seconds: float = Field(20.0, gt=0)
    workers: int = Field(2, ge=1, description="threads that read and augment audio ahead of use")
    augmentation: AugmentationConfiguration = Field(default_factory=AugmentationConfiguration)  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _of_waveforms(self) -> SpeechConfiguration:
        if self.augmentation.spec_augment != SpecAugmentConfiguration():
            raise ValueError("augmentation.spec_augment hides what the network shall imitate; leave it out")
        return self


class NetworkTrainingConfiguration(StrictModel):
    """How a text-to-encoder network learns."""

    epochs: int = Field(40, ge=1)
    aligner_steps: int = Field(1000, ge=1, description="of the head of sounds, which says nothing but silence at first")
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    learning_rate: float = Field(1e-3, gt=0, description="peak rate")
    batch_positions: int = Field(6000, ge=1, description="of the encoder, in a batch, padding included")


class TextToEncoderRecipe(StrictModel):
    """Everything that ``asr train-text-to-encoder`` needs to know."""

    name: str
    output: str = Field(description="folder of the network")
    model: str = Field(description="recogniser whose encoder is imitated, a checkpoint folder or embedded")
    layers: int | None = Field(None, ge=1, description="how many of the encoder's layers, from the features up; all if left out")
    language: Literal["en", "zh"]
    data: SpeechConfiguration
    network: NetworkConfiguration = Field(default_factory=NetworkConfiguration)  # type: ignore[arg-type]
    training: NetworkTrainingConfiguration = Field(default_factory=NetworkTrainingConfiguration)  # type: ignore[arg-type]


class TextConfiguration(StrictModel):
    """What a language or punctuation model reads."""

    train: Paths = Field(min_length=1, description="plain text or .gz, one sentence a line")
    validation: Paths = Field((), description="other text; if left out, lines of the training text are held out")
    held_out: int = Field(100, ge=2, description="without validation text, one line of so many is held out")
    batch_tokens: int = Field(8192, ge=1, description="tokens in a batch, padding included")


class TextTrainingConfiguration(OptimizationConfiguration):
    """As of a recogniser, with what suits text."""

    epochs: int = Field(10, ge=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    schedule: Literal["inverse_square_root", "cosine"] = "cosine"
    warmup_steps: int = Field(200, ge=0)
    clip: float = Field(1.0, gt=0)
    keep_best: int = Field(1, ge=1)


class TextRecipe(StrictModel):
    """What every recipe has that is trained on plain text."""

    name: str
    output: str = Field(description="folder of the run: checkpoints, log, curves")
    data: TextConfiguration
    training: TextTrainingConfiguration = Field(
        default_factory=TextTrainingConfiguration  # type: ignore[arg-type]
    )


class LanguageModelRecipe(TextRecipe):
    """Everything that ``asr train-lm`` needs to know."""

    model: str | None = Field(
        None, description="recogniser whose tokens are read, a checkpoint folder or embedded; characters of the text if left out"
    )
    language_model: LanguageModelConfiguration = Field(default_factory=LanguageModelConfiguration)  # type: ignore[arg-type]


class PunctuationRecipe(TextRecipe):
    """Everything that ``asr train-punctuation`` needs to know."""

    punctuation: PunctuationConfiguration = Field(default_factory=PunctuationConfiguration)  # type: ignore[arg-type]


def _is_model(name: str) -> bool:
    return name in pretrained.names() or (Path(name) / CONFIGURATION).is_file()


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
