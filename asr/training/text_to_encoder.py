"""A text-to-encoder network learns from speech what an encoder says of each sound, how long it lasts, and how much else there is.

One process, from begin to end: for an hour of speech it takes some minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from asr import pretrained
from asr.audio.augmentation import WaveformAugmentation
from asr.corpora import manifests
from asr.corpora.batches import BatchLoader, select
from asr.exceptions import TrainingError
from asr.model import checkpoint as model_folder
from asr.model import text_to_encoder as network_folder
from asr.model.device import choose_device
from asr.model.layers import length_mask
from asr.model.precision import choose_for_training
from asr.model.recognizer import Recognizer
from asr.model.text_to_encoder import SILENCE, VOICE_NOISE, Sounds, TextToEncoder, TextToEncoderConfiguration, lay_out, padded
from asr.synthesis.pronunciation import BETWEEN, PAUSE, units
from asr.training import checkpoints
from asr.training.alignment import Aligned, Aligner, Spoken, batches, confusions, numbered
from asr.training.configuration import TextToEncoderRecipe
from asr.training.encoder_cache import fingerprint
from asr.training.schedule import cosine

_HELD_OUT = 0.04
_MOST_VOICES, _MOST_RESIDUALS = 1000, 180_000  # utterances; positions, an hour
_DURATION_WEIGHT = 0.2
_WARMUP = 100


@dataclass(frozen=True)
class Example:
    """An utterance as the network is taught it: ``wanted`` (positions, output), in deviations from the mean."""

    sounds: Sounds
    wanted: Tensor
    units: Tensor
    durations: Tensor


@dataclass(frozen=True)
class Result:
    """What was learned, on utterances that were held out.

    Attributes:
        explained: share of the variance of the encoder's output that the network explains, given another's voice.
        utterances: that were learned from.
        seconds: of speech, all of it.
        unreadable: utterances left out because something in their text has no pronunciation, or the sounds do not fit.
        folder: where the network is.
    """

    explained: float
    utterances: int
    seconds: float
    unreadable: int
    folder: Path


def train(recipe: TextToEncoderRecipe, report: Callable[[str], None] | None = None) -> Result:
    """Train a recipe's network and write its folder.

    Raises:
        TrainingError: the folder holds a network already or cannot be written to, too few utterances can be read, or the
            model's encoder has fewer layers or is given silence up to a fixed length.
        ConfigurationError, CheckpointError, CorpusError, AudioError: the recipe, the model or the data are not valid.
    """
    report = report or (lambda _: None)
    folder = Path(recipe.output)
    if (folder / model_folder.WEIGHTS).exists():
        raise TrainingError(f"{folder}: holds a network already; choose another output.")
    settings = recipe.training
    device = choose_device(settings.device)
    precision = choose_for_training("auto", device)
    torch.manual_seed(settings.seed)

    def autocast() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    recognizer = model_folder.load(pretrained.find(recipe.model), device).model
    rate = positions_per_second(recognizer, f"recipe {recipe.name}: {recipe.model}")
    there = len(recognizer.encoder.layers)
    layers = there if recipe.layers is None else recipe.layers
    if layers > there:
        raise TrainingError(
            f"recipe {recipe.name}: layers is {layers}, but the encoder of {recipe.model} has {there}; set it to at most that."
        )
    checkpoints.write_recipe(recipe, folder)
    spoken, known, seconds, unreadable = _listen(recipe, recognizer, layers, autocast, report)
    random.Random(settings.seed).shuffle(spoken)
    count = max(1, round(_HELD_OUT * len(spoken)))
    if len(spoken) < 2:
        raise TrainingError(_too_few(recipe, len(spoken)))
    width = spoken[0].values.shape[1]
    aligner = Aligner(width, len(known), rate).to(device)
    aligner.fit(spoken[count:], settings.aligner_steps, settings.seed, autocast, report)
    # Those that neither the aligner nor the network learns come first.
    held_out, learned = (
        [(each, found) for each in part if (found := aligner.align(each)) is not None]
        for part in (spoken[:count], spoken[count:])
    )
    unreadable += len(spoken) - len(held_out) - len(learned)
    if not held_out or not learned:
        raise TrainingError(_too_few(recipe, len(held_out) + len(learned)))
    aligned = held_out + learned

    network = TextToEncoder(
        TextToEncoderConfiguration(
            language=recipe.language,
            encoder=fingerprint(recognizer, layers),
            encoder_layers=layers,
            positions_per_second=rate,
            units=tuple(known),
            output=width,
            **recipe.network.model_dump(),
        )
    ).to(device)
    sample = torch.cat([each.values.float() for each, _ in aligned[:400]])
    network.mean.copy_(sample.mean(dim=0))
    network.deviation.copy_(sample.std(dim=0).clamp(min=1e-4))
    heard = [(each.sounds, probabilities) for each, (_, probabilities) in held_out]
    network.confusions.copy_(confusions(heard, len(known)))
    examples = [_example(each, found, network) for each, (found, _) in aligned]
    fit(network, examples[len(held_out) :], recipe, autocast, report)
    explained = _explained(network, examples[: len(held_out)], autocast)
    network = remember(network, examples, autocast)
    result = Result(explained, len(learned), seconds, unreadable, folder)
    network_folder.save(network, folder, _card(recipe, network, result))
    return result


def fit(
    network: TextToEncoder,
    examples: Sequence[Example],
    recipe: TextToEncoderRecipe,
    autocast: Callable[[], torch.autocast],
    report: Callable[[str], None],
) -> None:
    """Least squares on the encoder's output and on the logarithm of durations."""
    settings = recipe.training
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = random.Random(settings.seed)
    lengths = [len(each.wanted) for each in examples]
    per_epoch = len(batches(lengths, settings.batch_positions, random.Random(0)))
    step = 0
    network.train()
    for epoch in range(settings.epochs):
        totals = [0.0, 0.0]
        order = batches(lengths, settings.batch_positions, generator)
        for batch in order:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * cosine(step + 1, _WARMUP, settings.epochs * per_epoch)
            output, duration = losses(network, [examples[index] for index in batch], autocast)
            optimizer.zero_grad()
            (output + _DURATION_WEIGHT * duration).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            totals = [total + float(value.detach()) / len(order) for total, value in zip(totals, (output, duration), strict=True)]
        report(f"encoder, epoch {epoch + 1} of {settings.epochs}: {totals[0]:.4f} of the variance, durations {totals[1]:.4f}")
    network.eval()


def losses(
    network: TextToEncoder,
    examples: Sequence[Example],
    autocast: Callable[[], torch.autocast],
    speakers: Sequence[Example] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the encoder's output, and of the logarithm of durations but for the silences at the ends.

    Args:
        speakers: the utterances whose voices are given; those of the examples themselves if left out.
    """
    device = network.mean.device
    sounds, lengths = (each.to(device) for each in padded([each.sounds.units for each in examples]))
    places = padded([each.sounds.places for each in examples])[0].to(device)
    wanted = padded([each.wanted for each in examples])[0].to(device).float()
    units_, counts = (each.to(device) for each in padded([each.units for each in examples]))
    lasted = padded([each.durations for each in examples])[0].to(device)
    means = torch.stack([each.wanted.float().mean(dim=0) for each in speakers or examples]).to(device)
    with autocast():
        voice = network.voice(means)
        if network.training:
            voice = voice + VOICE_NOISE * torch.randn_like(voice)
        found = network(sounds, places, lengths, voice)
        log_durations = network.log_durations(units_, counts, voice.detach())
    valid = length_mask(lengths, wanted.shape[1])
    output = (found.float() - wanted).square()[valid].mean()
    inner = length_mask(counts - 1, units_.shape[1])
    inner[:, 0] = False
    duration = (log_durations.float() - (lasted + 0.5).log()).square()[inner].mean()
    return output, duration


def positions_per_second(model: Recognizer, name: str) -> float:
    """Of a recogniser's encoder.

    Raises:
        TrainingError: it is given silence up to a fixed length, so that what it says depends on more than the sounds.
    """
    if model.configuration.encoder.minimum_seconds:
        raise TrainingError(
            f"{name} has encoder.minimum_seconds {model.configuration.encoder.minimum_seconds:g}, and sounds without the silence "
            "that follows are imitated; set it to 0 in the model's config.yaml if it was fine-tuned so, or fine-tune one first."
        )
    return (model.positions(21.0) - model.positions(1.0)) / 20


def _too_few(recipe: TextToEncoderRecipe, count: int) -> str:
    language = {"en": "English", "zh": "Mandarin"}[recipe.language]
    return f"recipe {recipe.name}: {count} utterances can be read, which are too few; give speech with {language} text in words."


def _listen(
    recipe: TextToEncoderRecipe,
    recognizer: Recognizer,
    layers: int,
    autocast: Callable[[], torch.autocast],
    report: Callable[[str], None],
) -> tuple[list[Spoken], dict[str, int], float, int]:
    """Utterances with what the encoder says of them, all units by number, seconds, and how many could not be read."""
    device = next(recognizer.parameters()).device
    data = recipe.data
    cuts, _ = select(manifests.load_all(data.train), minimum_seconds=0.1, maximum_seconds=data.maximum_seconds, fits=None)
    loader = BatchLoader(
        cuts,
        maximum_seconds=60,
        shuffle=True,
        seed=recipe.training.seed,
        workers=data.workers,
        augmentation=WaveformAugmentation(data.augmentation),
    )
    read: list[tuple[Tensor, tuple[str, ...]]] = []
    seconds, unreadable = 0.0, 0
    for count, batch in enumerate(loader.epoch(0)):
        pronounced = [units(text, recipe.language) for text in batch.texts]
        unreadable += sum(not each for each in pronounced)
        kept = [row for row, each in enumerate(pronounced) if each]
        if not kept:
            continue
        with torch.inference_mode(), autocast():
            features = recognizer.features(batch.waveforms[kept].to(device), batch.lengths[kept].to(device))
            hidden, lengths = recognizer.encoder.lower(*features, layers)
        for row, values, length in zip(kept, hidden, lengths.tolist(), strict=True):
            read.append((values[:length].bfloat16().cpu().clone(), pronounced[row] or ()))
        seconds += float(batch.lengths[kept].sum()) / 16_000
        if count % 50 == 0:
            report(f"{len(read)} utterances, {seconds / 3600:.2f} h heard")
        if seconds >= 3600 * data.hours:
            break
    marks = {PAUSE, BETWEEN}
    found = sorted({unit for _, each in read for unit in each} - marks)
    known = {unit: number for number, unit in enumerate([SILENCE, *found])}
    return [Spoken(values, *numbered(each, known)) for values, each in read], known, seconds, unreadable


def _example(utterance: Spoken, aligned: Aligned, network: TextToEncoder) -> Example:
    wanted = (utterance.values.float() - network.mean.cpu()) / network.deviation.cpu()
    sounds = lay_out(aligned.units, aligned.durations)
    positions = min(len(wanted), len(sounds.units))
    return Example(
        Sounds(sounds.units[:positions], sounds.occurrences[:positions], sounds.places[:positions]),
        wanted[:positions].bfloat16(),
        torch.tensor(aligned.units),
        torch.tensor(aligned.durations),
    )


@torch.no_grad()
def _explained(network: TextToEncoder, examples: Sequence[Example], autocast: Callable[[], torch.autocast]) -> float:
    errors = variance = 0.0
    for place, each in enumerate(examples):
        output, _ = losses(network, [each], autocast, [examples[place - 1]])
        errors += float(output) * each.wanted.numel()
        variance += float(each.wanted.float().square().sum())
    return 1 - errors / max(variance, 1e-9)


@torch.no_grad()
def remember(network: TextToEncoder, examples: Sequence[Example], autocast: Callable[[], torch.autocast]) -> TextToEncoder:
    """The network with voices, and with what it does not explain of utterances, by unit."""
    device = network.mean.device
    chosen = list(examples)
    random.Random(0).shuffle(chosen)
    voices: list[Tensor] = []
    residuals: list[Tensor] = []
    segments: list[tuple[int, int, int]] = []
    position = 0
    for each in chosen[:_MOST_VOICES]:
        mean = each.wanted.float().mean(dim=0, keepdim=True)
        voices.append(mean)
        if position + len(each.wanted) > _MOST_RESIDUALS:
            continue
        units_, places = each.sounds.units[None].to(device), each.sounds.places[None].to(device)
        with autocast():
            found = network(units_, places, torch.tensor([len(each.wanted)], device=device), network.voice(mean.to(device)))
        residuals.append(each.wanted.float() - found[0].float().cpu())
        lengths = torch.bincount(each.sounds.occurrences, minlength=len(each.units)).tolist()
        for unit, length in zip(each.units.tolist(), lengths, strict=True):
            segments.append((unit, position, position + length))
            position += length
    counts = {"voices": len(voices), "residuals": position, "segments": len(segments)}
    whole = TextToEncoder(network.configuration.model_copy(update=counts)).to(device)
    kept = {"voices": torch.cat(voices), "residuals": torch.cat(residuals), "segments": torch.tensor(segments)}
    whole.load_state_dict({**network.state_dict(), **kept})
    return whole.eval()


def _card(recipe: TextToEncoderRecipe, network: TextToEncoder, result: Result) -> str:
    parameters = sum(each.numel() for each in network.parameters())
    rows = [
        f"# {recipe.name}: text to encoder",
        "",
        f"- What {network.configuration.encoder_layers} layers of the encoder of {Path(recipe.model).name} say of sounds "
        f"({recipe.language}); for `data.text` of `asr train`.",
        f"- Learned from {result.utterances:,} of {result.seconds / 3600:.2f} hours of utterances of "
        f"{', '.join(Path(path).name for path in recipe.data.train)}; {result.unreadable:,} could not be read.",
        f"- Parameters: {parameters:,}; units: {len(network.configuration.units) - 1}.",
        f"- On utterances held out, it explains {100 * result.explained:.1f} % of the variance of the encoder's output, given",
        "  another utterance's voice.",
    ]
    return "\n".join(rows) + "\n"
