"""Python interface: arrays in, results out. It runs the same workflows as the command line."""

import warnings
from collections import deque
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tonewood.audio_io.reader import MAX_CHANNELS, MAX_RATE, MIN_RATE, MIN_RECORDING_SECONDS, read_recording
from tonewood.audio_io.recording import MixMeter, find_left_out_recordings, to_float_samples, to_whole_rate
from tonewood.enhancement import analysis, streaming
from tonewood.enhancement.analysis import Score
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.errors import AudioError, CallError, explain_missing_torch, settings_named_as
from tonewood.model.model import Model, load_model, load_pretrained, upload_model, write_model_folder
from tonewood.setting_types import EnhanceMethod
from tonewood.settings import EnhanceSettings, ModelSettings, RenderSettings, default_enhance_settings
from tonewood.utils.arrays import Samples, usual_torch_state


def load(model: str | Path = "cello") -> Model:
    """Load a model file, or a bundled model by its name."""
    _refuse_empty(model=model)
    return load_model(model)


@explain_missing_torch("tonewood.train")
def train(
    reference: str | Path | Mapping[str, float] | Mapping[Path, float] | None = None,
    source: str | Path | None = None,
    output: str | Path | None = None,
    *,
    preferences: str | Path | None = None,
    ratings: str | Path | None = None,
    settings: ModelSettings | None = None,
    device: str = "cpu",
    cache: str | Path | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> Model:
    """Learn a model from two unpaired folders, from listeners' answers, or from both.

    Parameters
    ----------
    reference : path, or mapping of paths to weights, optional
        Folder with the target sound; or several with weights, as in `{"studio": 2, "hall": 1}`.
    source : path, optional
        Folder with the sound to improve.
    output : path, optional
        Model file to write.
    overwrite : bool
        Replace an existing `output`.
    preferences, ratings : path, optional
        CSV tables of listeners' answers, with the columns `preferred,other` and `file,rating`.
    settings : ModelSettings, optional
    device : {"cpu", "cuda"}
    cache : path, optional
        Folder for analysed recordings, which later trainings reuse.
    skip_bad : bool
        Leave out recordings that cannot be used, each with a warning of Python.

    Raises
    ------
    TonewoodError
        The training is impossible; the text says why in one line.
    """
    # These modules import torch, which enhancing does not need.
    from tonewood.data.dataset import WeightedFolder
    from tonewood.data.feature_cache import NO_CACHE, FeatureCache
    from tonewood.data.loading import check_folder_weights, list_folders
    from tonewood.data.manifest import BadRecordings
    from tonewood.training.pipeline import train_model

    _refuse_empty(source=source, output=output, preferences=preferences, ratings=ratings, cache=cache)
    folders = tuple(reference) if isinstance(reference, Mapping) else (reference,)
    for folder in folders:
        _refuse_empty(reference=folder)
    name = Path(output).stem if output else "model"
    reference_input: Path | list[WeightedFolder] | None
    if isinstance(reference, Mapping):
        reference_input = [WeightedFolder(Path(folder), weight) for folder, weight in reference.items()]
        check_folder_weights(reference_input)
    else:
        reference_input = None if reference is None else Path(reference)
    source_input = None if source is None else Path(source)
    for side in (*list_folders(reference_input), *list_folders(source_input)):
        for path, reason in find_left_out_recordings(side):
            warnings.warn(f"{path} is left out: it {reason}", stacklevel=2)
    bad = BadRecordings(skip=skip_bad)
    events = train_model(
        reference_input,
        source_input,
        settings or ModelSettings(),
        preferences=None if preferences is None else Path(preferences),
        ratings=None if ratings is None else Path(ratings),
        name=name,
        device=device,
        cache=FeatureCache(Path(cache)) if cache else NO_CACHE,
        bad=bad,
    )
    with usual_torch_state():
        (model,) = deque(events, maxlen=1)  # the events before it are for progress displays
    assert isinstance(model, Model)
    for recording in bad.found:
        warnings.warn(f"left out: {recording.error}", stacklevel=2)
    if output:
        model.save(output, overwrite=overwrite)
    return model


def enhance(
    samples: ArrayLike | str | PathLike[str],
    rate: int | None = None,
    model: Model | str | Path = "cello",
    *,
    amount: float | None = None,
    method: EnhanceMethod | None = None,
    settings: EnhanceSettings | None = None,
) -> Enhancement:
    """Change a recording toward the sound of the model's reference.

    Parameters
    ----------
    samples : array (channels, samples) or (samples,), or path of a recording
        Floats with full scale 1, or integers as in files.
    rate : int
        Hz; left out for a path.
    model : Model, path or name
    amount : float, optional
        Strength of the change; it replaces that of `settings`.
    method : {"search", "predicted", "paper"}, optional
        Defaults of this method; not together with `settings`.
    settings : EnhanceSettings, optional

    Returns
    -------
    Enhancement
        `samples` (channels, samples) float32 at the same rate, the mask, scores before and after.

    Raises
    ------
    TonewoodError
        The recording or a setting cannot be used; the text says why in one line.
    """
    if method is not None and settings is not None:
        raise CallError("method and settings cannot be used together: use settings.replace(method=…)")
    used = settings or default_enhance_settings(method or "search")
    if amount is not None:
        with settings_named_as({"render.amount": "amount"}):
            used = used.replace(render=dict(amount=amount))
    recording = _read_input("enhance", samples, rate, model)
    events = enhance_array(recording.samples, recording.rate, recording.model, used)
    (result,) = deque(events, maxlen=1)
    assert isinstance(result, Enhancement)
    return result


def score(
    samples: ArrayLike | str | PathLike[str], rate: int | None = None, model: Model | str | Path = "cello"
) -> Score:
    """Return the score of a recording: 0 like the reference, 1 like the source.

    Parameters and errors are those of `enhance`.
    """
    return analysis.score_array(*_read_input("score", samples, rate, model))


def save_pretrained(model: Model | str | Path, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a model and its card (README.md) into a folder for `from_pretrained`."""
    write_model_folder(_as_model(model), Path(folder), overwrite=overwrite)


def from_pretrained(place: str | Path, *, revision: str | None = None) -> Model:
    """Load a model from a folder of `save_pretrained`, or from a repository of the Hugging Face Hub.

    Downloaded files are cached. `revision` is a branch, tag or commit.
    """
    return load_pretrained(place, revision)


def push_to_hub(
    model: Model | str | Path,
    repository: str,
    *,
    private: bool = False,
    message: str = "Add a Tonewood model",
) -> str:
    """Upload a model and its card to a repository of the Hugging Face Hub; return the commit's address.

    Parameters
    ----------
    model : Model, path or name
    repository : str
        As in ``somebody/cello``; created if it does not exist. The login is that of huggingface_hub.
    """
    return upload_model(_as_model(model), repository, private=private, message=message)


class Stream(streaming.StreamingEnhancer):
    """Enhance audio block by block, with low latency.

    Parameters
    ----------
    model : Model, path or name
        It needs a predictor.
    rate : int
        Hz.
    channels : int
    settings : RenderSettings, optional
    """

    def __init__(
        self,
        model: Model | str | Path = "cello",
        rate: int = 48_000,
        channels: int = 1,
        settings: RenderSettings | None = None,
    ) -> None:
        super().__init__(_as_model(model), rate, channels, settings or RenderSettings())


def _refuse_empty(**paths: object) -> None:
    """Raise CallError for an empty path, which would be the current folder."""
    for name, path in paths.items():
        if path == "":
            raise CallError(f"{name} is empty: give a path, or None to leave it out")


def _as_model(model: Model | str | Path) -> Model:
    """Return a model, loaded if it is a path or a name."""
    return model if isinstance(model, Model) else load(model)


class _Input(NamedTuple):
    """Samples (channels, samples), their rate, and a model."""

    samples: Samples
    rate: int
    model: Model


def _read_input(function: str, samples: Any, rate: Any, model: Any) -> _Input:  # noqa: ANN401 - as called
    """Check what a function was called with, and read a recording that is named by its path."""
    if isinstance(samples, str | PathLike):
        # score("take.wav", model) is what people write: the model is the second argument then.
        if isinstance(rate, Model | str | PathLike):
            rate, model = None, rate
        if rate is not None:
            raise CallError(f"rate is {rate!r} beside a path: leave it out, because the file states it")
        recording = read_recording(Path(samples))
        return _Input(recording.samples, recording.rate, _as_model(model))
    if rate is None or isinstance(rate, Model):
        raise CallError(f"the rate is missing: call {function}(samples, rate, model) or {function}(path)")
    whole = to_whole_rate(rate, MIN_RATE, MAX_RATE)
    return _Input(_validate_samples(samples, whole), whole, _as_model(model))


def _validate_samples(samples: ArrayLike, rate: int) -> NDArray[np.float32]:
    """Return samples as float32 (channels, samples), with the limits that files have."""
    wave = np.atleast_2d(to_float_samples(samples))
    if wave.ndim != 2:
        raise CallError(f"samples have shape {wave.shape}: give (channels, samples)")
    if wave.shape[0] > MAX_CHANNELS:
        raise AudioError(
            f"samples have {wave.shape[0]} channels, and at most {MAX_CHANNELS} are allowed: "
            "give (channels, samples), or fewer channels"
        )
    if wave.shape[1] < MIN_RECORDING_SECONDS * rate:
        raise AudioError(
            f"samples last {wave.shape[1] / rate:.2f} s; a score needs {MIN_RECORDING_SECONDS} s: "
            "give a longer recording"
        )
    if not np.isfinite(wave).all():
        raise AudioError("samples contain NaN or infinite values: repair them first")
    # A constant is silence too: its spectrum above DC is empty, and no level can be matched.
    if np.ptp(wave) == 0:
        raise AudioError("samples are silent: give a recording with sound")
    mix = MixMeter()
    mix.push(wave)
    if mix.is_cancelled:
        raise AudioError(
            "the channels of samples cancel when they are mixed to one, which is what Tonewood analyses: "
            "invert the polarity of one"
        )
    return wave
