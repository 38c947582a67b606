"""Train the networks of a model: scorer and judge with a checkpoint for `--resume`, and the predictor.

The predictor imitates, in one pass, the masks of prior and search: knowledge distillation (Hinton,
Vinyals & Dean 2015) of a slow method into a fast network.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tonewood.data.dataset import TrainingRecording, select_training_excerpts, split_takes, take_weights
from tonewood.data.feature_cache import open_recording
from tonewood.data.loading import DatasetSide
from tonewood.dsp.features import center_frequencies
from tonewood.dsp.stft import scale_to_rate
from tonewood.enhancement.analysis import AudioSource, TruncatedSource, analyse_source
from tonewood.enhancement.mask_search import find_mask
from tonewood.enhancement.prior_mask import iter_features
from tonewood.errors import ModelError, printable
from tonewood.mask.mask import Mask
from tonewood.model.card import PredictorCard
from tonewood.model.model import Model
from tonewood.priors.blend_selection import cycle_distance
from tonewood.priors.fitting import blended_prior
from tonewood.priors.nearest_neighbours import back_translate
from tonewood.priors.network_training import DistillationExample, prediction_error_db, train_predictor
from tonewood.priors.predictor import Predictor
from tonewood.scorer.graded_crops import WayPair
from tonewood.scorer.preference_training import ListenerData, train_preference_scorer
from tonewood.scorer.training import LabelledTakes, TrainedScorer, ValidationCheck, train_scorer
from tonewood.scorer.training_loop import TrainingState, world_size
from tonewood.settings import EnhanceSettings, ModelSettings, PredictorSettings
from tonewood.training.preferences import hold_out_listener_groups
from tonewood.utils.files import append_to_name, write_bytes
from tonewood.utils.parallel import parallel_iterate, parallel_map

# Recordings of each side that priors, guide and predictor learn from; longer folders are sampled.
MAX_LEARNING_SECONDS = 1800.0
CHECKPOINT_SUFFIX = ".checkpoint"
_CHECKPOINT_VERSION = 1

NetworkName = Literal["scorer", "judge"]
RecordingsBySide = Mapping[DatasetSide, Sequence[TrainingRecording]]


class CheckEvent(NamedTuple):
    """Validation of one network on recordings that it does not learn from."""

    network: NetworkName
    check: ValidationCheck


class LabelProgress(NamedTuple):
    """Progress of `distill_predictor`: one more recording has its mask."""

    number: int
    total: int
    path: Path


class TakeWay(NamedTuple):
    """Way from source to reference, made of a take of one side and group."""

    side: DatasetSide
    group: str
    way: WayPair


class Checkpoint:
    """Training states of the networks, in one safetensors file beside the model.

    Parameters
    ----------
    resumed : bool
        Continue an existing file instead of replacing it.
    is_required : bool
        If resumed: refuse the file of another training, instead of replacing it.
    """

    def __init__(self, path: Path, *, resumed: bool = False, is_required: bool = True) -> None:
        self.path, self._resumed, self._is_required = path, resumed, is_required
        self._training_key = ""
        self._states: dict[str, dict[str, Tensor]] = {}
        self._lock = Lock()  # networks train at the same time

    @classmethod
    def for_model(cls, model: Path, *, resumed: bool = False, is_required: bool = True) -> "Checkpoint":
        """Return the checkpoint of a model file."""
        path = append_to_name(model, CHECKPOINT_SUFFIX)
        return cls(path, resumed=resumed, is_required=is_required)

    def open(self, training_key: Sequence[str]) -> None:
        """Set the key of the training, and read the file if it is resumed.

        ModelError if the file is required, and belongs to another training or is damaged.
        """
        # The version changes whenever a state of an older version cannot be continued.
        self._training_key, self._states = json.dumps([_CHECKPOINT_VERSION, *training_key]), {}
        if not self._resumed or not self.path.exists():
            return
        try:
            self._read_states()
        except ModelError:
            self._states = {}
            if self._is_required:
                raise

    def _read_states(self) -> None:
        try:
            with safe_open(self.path, "pt") as file:
                is_same_training = (file.metadata() or {}).get("told") == self._training_key
                for name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                    network, key = name.split("/", 1)  # names as written by `_write_file`
                    # A clone outlives the mapped file, which the next save replaces.
                    self._states.setdefault(network, {})[key] = file.get_tensor(name).clone()
        except (OSError, SafetensorError, ValueError):
            raise ModelError(f"{printable(self.path)} is damaged: omit --resume to start again") from None
        if not is_same_training:
            raise ModelError(
                f"{printable(self.path)} belongs to another training: the recordings or settings differ; "
                "omit --resume to start again"
            )

    def get_state(self, network: str) -> TrainingState | None:
        """Return the saved state of a network; None if it has not started."""
        return self._states.get(network)

    def save_state(self, network: str, state: TrainingState) -> None:
        """Write the state of a network; raise OutputError if that fails."""
        with self._lock:
            self._states[network] = dict(state)
            self._write_file()

    def record_digest(self, digest: str) -> None:
        """Write the digest of the finished model, before the model itself is written."""
        if self._states:  # without a state there is no file, so nothing to resume
            self._write_file({"made": digest})

    def recorded_digest(self) -> str | None:
        """Return the digest of the finished model, if the training is resumed and had finished."""
        if self._resumed and self.path.exists():
            with suppress(OSError, SafetensorError), safe_open(self.path, "pt") as file:
                return (file.metadata() or {}).get("made")
        return None

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _write_file(self, extra_metadata: Mapping[str, str] | None = None) -> None:
        tensors = {
            f"{network}/{key}": torch.as_tensor(value).contiguous()
            for network, state in self._states.items()
            for key, value in state.items()
        }
        content = save(tensors, {"told": self._training_key, **(extra_metadata or {})})
        write_bytes(self.path, content, overwrite=True)  # atomic: a crash leaves the previous state


# --- Scorer and judge


def open_checkpoint(
    checkpoint: Checkpoint | None,
    takes: RecordingsBySide | None,
    listener_data: ListenerData | None,
    settings: ModelSettings,
) -> Checkpoint | None:
    """Open a checkpoint for a training; ModelError if it belongs to another one.

    None if several processes train together: the random state of each differs, and a file holds only one.
    """
    if checkpoint is None or world_size() > 1:
        return None
    checkpoint.open(_training_key(takes, listener_data, settings))
    return checkpoint


def fit_scorers(
    takes: RecordingsBySide | None,
    listener_data: ListenerData | None,
    settings: ModelSettings,
    device: str,
    checkpoint: Checkpoint | None = None,
    ways: Sequence[TakeWay] = (),
) -> Generator[CheckEvent, None, dict[NetworkName, TrainedScorer]]:
    """Train the scorer and, if the settings ask for it, the judge; yield every check.

    Parameters
    ----------
    takes, listener_data
        Recordings with the label of their folder, and answers of listeners. One may be None.
    checkpoint : Checkpoint, optional
        An open one; see `open_checkpoint`.
    ways : sequence of TakeWay
        For graded targets; without them the scorer learns the labels.
    """

    def train(item: tuple[NetworkName, int]) -> Iterator[ValidationCheck | TrainedScorer]:
        network, seed = item
        state = checkpoint.get_state(network) if checkpoint is not None else None
        for event in _train_network(takes, listener_data, settings, seed, device, state, ways):
            if isinstance(event, ValidationCheck) and checkpoint is not None and event.run is not None:
                checkpoint.save_state(network, event.run.state())
            yield event

    networks = networks_to_train(settings)
    # Processes that train together exchange gradients in one order.
    trainings = map(train, networks) if world_size() > 1 else parallel_iterate(train, networks)
    fits: dict[NetworkName, TrainedScorer] = {}
    for (network, _), events in zip(networks, trainings, strict=True):
        for event in events:
            if isinstance(event, TrainedScorer):
                fits[network] = event
            else:
                yield CheckEvent(network, event)
    return fits


def _train_network(
    takes: RecordingsBySide | None,
    listener_data: ListenerData | None,
    settings: ModelSettings,
    seed: int,
    device: str,
    state: TrainingState | None,
    ways: Sequence[TakeWay],
) -> Iterator[ValidationCheck | TrainedScorer]:
    training = settings.training
    # Scorer and judge hold out different recordings: each has a split of its own seed.
    labels = hold_out_takes(takes, training.held_out, seed, ways) if takes is not None else None
    # Preference training takes labels as a second task, so it covers the combined case too.
    if listener_data is not None:
        return train_preference_scorer(
            *hold_out_listener_groups(listener_data, training.held_out, seed),
            settings.scorer,
            settings.spectrum,
            training,
            labels=labels,
            seed=seed,
            device=device,
            state=state,
        )
    assert labels is not None
    return train_scorer(
        *labels, settings.scorer, settings.spectrum, training, seed=seed, device=device, state=state
    )


def networks_to_train(settings: ModelSettings) -> list[tuple[NetworkName, int]]:
    """Return the networks to train, each with its own seed."""
    seed = settings.training.seed  # a judge of the same seed would repeat the scorer's errors
    networks: list[tuple[NetworkName, int]] = [("scorer", seed), ("judge", seed + 1)]
    return networks if settings.training.judge else networks[:1]


def hold_out_takes(
    takes: RecordingsBySide, share: float, seed: int, ways: Sequence[TakeWay] = ()
) -> tuple[LabelledTakes, LabelledTakes]:
    """Split both sides into row levels to learn from and row levels to check on; ways follow their takes."""
    reference = split_takes(takes["reference"], share, seed)
    source = split_takes(takes["source"], share, seed)
    return (
        _labelled_takes(reference.train, source.train, ways),
        _labelled_takes(reference.held_out, source.held_out, ways),
    )


def _labelled_takes(
    reference: Sequence[TrainingRecording], source: Sequence[TrainingRecording], ways: Sequence[TakeWay]
) -> LabelledTakes:
    groups = {"reference": {take.group for take in reference}, "source": {take.group for take in source}}
    return LabelledTakes(
        [take.rows_db for take in reference],
        [take.rows_db for take in source],
        take_weights(reference),
        [way.way for way in ways if way.group in groups[way.side]],
    )


def _training_key(
    takes: RecordingsBySide | None, listener_data: ListenerData | None, settings: ModelSettings
) -> list[str]:
    """Return settings and a hash of the data: a checkpoint fits only a training with equal ones."""
    hasher = hashlib.sha256()
    for side, side_takes in (takes or {}).items():
        for take in side_takes:
            hasher.update(f"{side} {take.digest} {take.group} {take.weight}\n".encode())
    if listener_data is not None:
        answers = listener_data.better, listener_data.worse, listener_data.rated, listener_data.target
        # Hashed whole: unlike folders, tables have no digest per recording.
        for array in (*(answer.numpy() for answer in answers), *listener_data.rows):
            hasher.update(array.tobytes())
    return [settings.model_dump_json(), hasher.hexdigest()]


# --- Predictor


def distill_predictor(
    model: Model, takes: Mapping[DatasetSide, list[TrainingRecording]], settings: PredictorSettings
) -> Iterator[LabelProgress | Model]:
    """Add a predictor to a model; yield the progress and, last, the model with its predictor.

    The predictor learns the masks that prior and search find for the source recordings. Everything
    else in the model stays the same to the bit.

    `takes` are the recordings that the model was trained on; AudioError if one cannot be read again.
    """
    seed, spectrum = model.settings.training.seed, model.settings.spectrum

    # Find the mask of every recording with prior and search: the labels.
    split = split_takes(takes["source"], settings.held_out, seed)
    train, held_out = _limit_duration(split.train, seed), _limit_duration(split.held_out, seed)
    chosen = (*train, *held_out)

    def find_labels(take: TrainingRecording) -> DistillationExample:
        source = TruncatedSource(open_recording(take.item, model.card.fix), MAX_LEARNING_SECONDS)
        return _distillation_example(source, model, settings.search_steps)

    examples: list[DistillationExample] = []
    for take, example in zip(chosen, parallel_map(find_labels, chosen), strict=True):
        examples.append(example)
        yield LabelProgress(len(examples), len(chosen), take.path)
    train_examples, held_out_examples = examples[: len(train)], examples[len(train) :]

    predictor = train_predictor(
        train_examples,
        model.priors.static_db,
        model.guide.as_tensors().energy,
        center_frequencies(model.settings.scorer.bands, spectrum),
        settings,
        spectrum.hop_ms,
        torch.Generator().manual_seed(seed),
    )
    # A model file stores half precision: rounding now makes the model equal to its file.
    predictor = Predictor.from_tensors(predictor.tensors(), settings, spectrum.hop_ms)

    card = _predictor_card(model, predictor, held_out_examples, takes["reference"])
    yield replace(
        model,
        settings=model.settings.model_copy(
            update={"predictor": settings.model_copy(update={"taught": True})}
        ),
        predictor=predictor,
        card=model.card.model_copy(update={"predictor": card}),
    )


def _limit_duration(takes: Sequence[TrainingRecording], seed: int) -> list[TrainingRecording]:
    """Return all takes, or a random choice of them that lasts `MAX_LEARNING_SECONDS`."""
    # A random order, so that a long folder is not represented by its first files.
    order = torch.randperm(len(takes), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen: list[int] = []
    seconds = 0.0
    for k in order:
        if chosen and seconds + takes[k].seconds > MAX_LEARNING_SECONDS:
            break
        chosen.append(k)
        seconds += takes[k].seconds
    return [takes[k] for k in sorted(chosen)]  # in folder order, as progress shows it


def _distillation_example(source: AudioSource, model: Model, steps: int) -> DistillationExample:
    """Return the row levels of a recording, the mask found for it, and the search's share of it."""
    spectrum = model.settings.spectrum
    analysis = analyse_source(source, model)
    settings = EnhanceSettings().replace(search=dict(steps=steps))
    # Step 0 is the prior alone; the last step includes the search.
    events = list(find_mask(analysis, model, settings))
    prior_db, mask_db = (
        np.concatenate([event.mask_db for event in events if event.number == number], axis=1)
        for number in (0, steps)
    )
    labels = mask_db, mask_db - prior_db
    if source.rate < spectrum.rate:
        return DistillationExample(analysis.rows_db.read(0, analysis.rows_db.frames), *labels)

    # Streaming analyses a recording at its own rate: bring the labels to that frame grid.
    rows = np.concatenate(list(iter_features(source, model)), axis=1)
    _, hop, _ = scale_to_rate(spectrum, source.rate)
    seconds = np.arange(rows.shape[1]) * (hop / source.rate)
    hz = center_frequencies(model.settings.scorer.bands, spectrum)
    masks = (Mask(label, hz, spectrum.hop / spectrum.rate, spectrum.rate / 2) for label in labels)
    return DistillationExample(rows, *(mask.gain_at(hz, seconds) for mask in masks))


def _predictor_card(
    model: Model,
    predictor: Predictor,
    held_out: Sequence[DistillationExample],
    reference: list[TrainingRecording],
) -> PredictorCard:
    audible_db = np.concatenate([example.mask_db[:, example.audible] for example in held_out], axis=1)
    return PredictorCard(
        parameters=predictor.parameter_count,
        takes=len(held_out),
        missed_db=prediction_error_db(predictor, held_out),
        spread_db=float(np.sqrt(np.square(audible_db - model.priors.static_db[:, None]).mean())),
        cycle_db=_cycle_distances(model, predictor, reference),
    )


def _cycle_distances(
    model: Model, predictor: Predictor, reference: list[TrainingRecording]
) -> tuple[float, float, float]:
    """Return the cycle distance in dB without a mask, with the prior's and with the predictor's."""
    priors, settings = model.priors, model.settings
    held_out = split_takes(reference, settings.priors.held_out, settings.training.seed).held_out
    # Each reference recording held out is translated to the source, so that its true mask is known:
    # the one that leads back to it.
    distances = []
    for features in select_training_excerpts(held_out, MAX_LEARNING_SECONDS, settings.training.seed).features:
        take = priors.reference.prior_features(features)
        pseudo = back_translate(take, priors.reference, priors.source, priors.hop_ms)
        masks = (
            np.zeros_like(pseudo.rows_db),
            blended_prior(priors, pseudo),
            predictor.predict(pseudo.rows_db).mask_db,
        )
        distances.append([cycle_distance(pseudo.rows_db + mask, take) for mask in masks])
    before, prior, predicted = np.mean(distances, axis=0).tolist()
    return before, prior, predicted
