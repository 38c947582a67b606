"""From pieces to what is heard: excerpts, fades, equal loudness, anchors, checks of the ears.

All files of a test are alike in rate, channels, samples and bytes; nothing but the sound differs.

Where stimuli come from: an enhancement's outputs and their inputs, or a folder a condition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import firwin, kaiserord, oaconvolve

from tonewood.audio_io.reader import file_sha256, find_audio_files, read_recording, resample
from tonewood.dsp.filterbank import band_levels, frame_levels, is_audible
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement import recipe
from tonewood.enhancement.output_files import FileFailure, sidecar_path
from tonewood.errors import AudioError, CallError, FolderError, printable
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples

TARGET_LUFS, MAX_PEAK_DB, MATCH_TOLERANCE_LU = -23.0, -1.0, 0.1
STIMULUS_FADE_SECONDS = 0.05
MIN_EXCERPT_SECONDS, MAX_EXCERPT_SECONDS = 5.0, 12.0
_ANCHOR_STOPBAND_DB = 60.0
_TRANSITION_RATIO = 1 / 7  # of the corner: 3.5 kHz passes, 4 kHz does not
_MAX_GAIN_ROUNDS = 8

HEADPHONE_TRIALS = 6
_TONE_HZ, _TONE_SECONDS, _GAP_SECONDS, _RAMP_SECONDS = 200.0, 1.0, 0.5, 0.1
_HEARING_HZ = (500.0, 2_000.0, 6_000.0)
_HEARING_DB = -50.0
_MAX_PULSES = 6


def find_strongest_excerpt(effect: FloatArray, frames: int, used_starts: tuple[int, ...] = ()) -> int | None:
    """First frame of the stretch in which most is done; none that overlaps one taken before."""
    sums = np.convolve(effect, np.ones(frames), mode="valid")
    for start in used_starts:
        sums[max(0, start - frames + 1) : start + frames] = -1.0
    best = int(np.argmax(sums))
    return best if sums[best] >= 0 else None


def draw_random_excerpt(effect: FloatArray, frames: int, rng: np.random.Generator) -> int | None:
    """First frame of a stretch drawn from all that sound for half of their length at least.

    `effect_db` is positive just where the recording sounds; silence compares nothing.
    """
    sounding = np.convolve(effect > 0, np.ones(frames), mode="valid")
    starts = np.flatnonzero(sounding >= frames / 2)
    return int(rng.choice(starts)) if len(starts) else None


def apply_fades(wave: Samples, rate: int) -> Samples:
    """Raised-cosine fades at both ends of (channels, samples)."""
    length = round(STIMULUS_FADE_SECONDS * rate)
    rise = np.sin(np.linspace(0, np.pi / 2, length)) ** 2
    shaped = wave.astype(np.float64)
    shaped[:, :length] *= rise
    shaped[:, -length:] *= rise[::-1]
    return shaped.astype(np.float32)


def low_pass_anchor(wave: Samples, rate: int, corner_hz: float) -> Samples:
    """Anchor of BS.1534-3: flat to 0.1 dB below the corner, 60 dB down a seventh above it.

    The recommendation asks for 25 dB and 50 dB at 4 kHz and 4.5 kHz; the filter's delay is taken
    off, so that switching stays synchronous.
    """
    taps, beta = kaiserord(_ANCHOR_STOPBAND_DB, _TRANSITION_RATIO * corner_hz / (rate / 2))
    taps |= 1
    kernel = firwin(taps, corner_hz * (1 + _TRANSITION_RATIO / 2), window=("kaiser", beta), fs=rate)
    return np.asarray(oaconvolve(wave, kernel[None], mode="same", axes=1), dtype=np.float32)


def equalize_loudness(waves: Mapping[str, Samples], rate: int) -> dict[str, Samples]:
    """All conditions of an excerpt at one loudness: −23 LUFS, or as much as their peaks leave.

    Raises
    ------
    ValueError
        One of them has no loudness: it is silent.
    """
    loudness = {name: integrated_loudness(wave, rate) for name, wave in waves.items()}
    if not np.isfinite(list(loudness.values())).all():
        raise ValueError("silence")
    room = [TARGET_LUFS - loud + true_peak_db(waves[name], rate) for name, loud in loudness.items()]
    target = TARGET_LUFS - max(0.0, max(room) - MAX_PEAK_DB)
    return {name: _scale_to_loudness(wave, rate, target) for name, wave in waves.items()}


def _scale_to_loudness(wave: Samples, rate: int, target: float) -> Samples:
    """Loudness is gated, so a gain moves it by not quite as much: a few rounds settle it."""
    for _ in range(_MAX_GAIN_ROUNDS):
        off = target - integrated_loudness(wave, rate)
        if abs(off) < 1e-3:
            break
        wave = (wave * 10 ** (off / 20)).astype(np.float32)
    return wave


def quantize_with_dither(wave: Samples, rng: np.random.Generator) -> NDArray[np.int16]:
    """16-bit samples (samples, channels) with triangular dither, drawn anew for every file."""
    shape = wave.T.shape
    noise = rng.random(shape) - rng.random(shape)
    steps = np.round(wave.T.astype(np.float64) * 32767 + noise)
    return np.clip(steps, -32768, 32767).astype(np.int16)


def headphone_check_sound(rate: int, order: NDArray[np.int64]) -> Samples:
    """Three tones, of which one is 6 dB softer and one is in antiphase (Woods et al. 2017).

    Over headphones the softer one is the softest; over loudspeakers the antiphase tone cancels.

    Parameters
    ----------
    order : array [3]
        Places of the plain, the softer and the antiphase tone.
    """
    tone = _ramped_tone(_TONE_HZ, _TONE_SECONDS, rate, -26.0)
    soft = 10 ** (-6 / 20)
    kinds = (np.stack([tone, tone]), np.stack([tone, tone]) * soft, np.stack([tone, -tone]))
    gap = np.zeros((2, round(_GAP_SECONDS * rate)))
    placed = [kinds[k] for k in np.argsort(order)]
    parts = [part for tone in placed for part in (tone, gap)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def hearing_check_sound(rate: int, hz: float, count: int) -> Samples:
    """So many soft pulses of a tone, spread over the same time whatever their number."""
    pulse = _ramped_tone(hz, 0.25, rate, _HEARING_DB)
    wave = np.zeros(round(_MAX_PULSES * 0.6 * rate))
    for k in range(count):
        start = round((0.2 + 0.6 * k) * rate)
        wave[start : start + len(pulse)] += pulse
    return np.stack([wave, wave]).astype(np.float32)


def make_check_sounds(rate: int, rng: np.random.Generator) -> list[tuple[str, int, Samples]]:
    """Kind, right answer and sound of every check, in stereo."""
    made = []
    for hz in _HEARING_HZ:
        count = int(rng.integers(2, 6))
        made.append(("hearing", count, hearing_check_sound(rate, hz, count)))
    for _ in range(HEADPHONE_TRIALS):
        order = rng.permutation(3)
        made.append(("headphones", int(order[1]) + 1, headphone_check_sound(rate, order)))
    return made


def _ramped_tone(hz: float, seconds: float, rate: int, level_db: float) -> FloatArray:
    time = np.arange(round(seconds * rate)) / rate
    ramp = np.minimum(1.0, np.minimum(time, seconds - time) / _RAMP_SECONDS)
    wave: FloatArray = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * time) * ramp
    return wave


UNTOUCHED_CONDITION, ENHANCED_CONDITION = "untouched", "enhanced"
MAX_STIMULUS_CHANNELS = 2
_EFFECT_SPECTRUM, _EFFECT_BANDS = SpectrumSettings(), BandSettings()
_MAX_LENGTH_DIFFERENCE_S = 0.1


@dataclass(frozen=True, eq=False)
class ComparedPiece:
    """One recording under every condition.

    Parameters
    ----------
    paths : dict of Path
        By condition.
    recipes : tuple of Path
        Of the masks that made the conditions; none for folders that are given as they are.
    """

    name: str
    paths: dict[str, Path]
    recipes: tuple[Path, ...] = ()

    def read_conditions(self, rate: int) -> dict[str, NDArray[np.float32]]:
        """Samples (channels, samples) by condition at one rate, cut to the shortest.

        Raises
        ------
        AudioError
            A file cannot be used, or the conditions are not one take: switching between them
            would jump.
        """
        found = {name: _read_at_rate(path, rate) for name, path in self.paths.items()}
        lengths = [wave.shape[1] for wave in found.values()]
        if max(lengths) - min(lengths) > _MAX_LENGTH_DIFFERENCE_S * rate:
            first, *_, last = sorted(self.paths.values(), key=str)
            raise AudioError(
                f"{printable(first)} and {printable(last)} differ in length by "
                f"{(max(lengths) - min(lengths)) / rate:.2f} s; {_MAX_LENGTH_DIFFERENCE_S} s are allowed: "
                "give conditions of one take"
            )
        return {name: wave[:, : min(lengths)] for name, wave in found.items()}

    def effect_db(self, waves: dict[str, NDArray[np.float32]], rate: int) -> FloatArray:
        """How much the conditions differ at each analysis frame [frame], dB, where it sounds.

        What the mask did says it best; without recipes it is the root mean square difference of
        band levels between conditions.
        """
        analysed = [_measure_band_levels(wave, rate) for wave in waves.values()]
        frames = min(rows.shape[1] for rows in analysed)
        levels = torch.stack([rows[:, :frames] for rows in analysed])
        loudness = frame_levels(levels[0])
        audible = is_audible(loudness).numpy()
        if self.recipes:
            hop = _EFFECT_SPECTRUM.hop / _EFFECT_SPECTRUM.rate
            seconds = np.arange(frames, dtype=np.float64) * hop
            effects = [_mask_effect_db(path, seconds) for path in self.recipes]
            return np.asarray(np.mean(effects, axis=0) * audible, dtype=np.float64)
        spread = levels.std(dim=0, correction=0).square().mean(dim=0).sqrt()
        return np.asarray(spread.numpy() * audible, dtype=np.float64)


def pieces_from_outputs(
    folders: Sequence[Path], inputs: Sequence[Path] = ()
) -> Iterator[ComparedPiece | FileFailure]:
    """Pieces of enhancement folders: what each recipe's input became in every one of them.

    Parameters
    ----------
    inputs : sequence of Path
        Where the inputs lie; by default beside the first folder.

    Raises
    ------
    FolderError
        A folder holds no output, or the input that a recipe names is not found.
    """
    names = [ENHANCED_CONDITION] if len(folders) == 1 else _condition_names(folders)
    made: dict[str, dict[str, Path]] = {}
    records: dict[str, tuple[str, str]] = {}
    for name, folder in zip(names, folders, strict=True):
        outputs = [path for path in find_audio_files(folder) if sidecar_path(path).exists()]
        if not outputs:
            raise FolderError(
                f"{printable(folder)} holds no output with a recipe: name a folder that "
                "tonewood enhance wrote"
            )
        for path in outputs:
            record = recipe.load_recipe(sidecar_path(path)).input
            made.setdefault(record.sha256, {})[name] = path
            place = path.relative_to(folder).with_suffix("").as_posix()
            records.setdefault(record.sha256, (record.name, place))
    where = list(inputs) or [folders[0].resolve().parent]
    at_hand = _files_by_name(where, {name for name, _ in records.values()})
    for digest, outputs_of in made.items():
        name, place = records[digest]
        first = next(iter(outputs_of.values()))
        own = next((p for p in at_hand.get(name, []) if file_sha256(p) == digest), None)
        if own is None:
            told = ", ".join(printable(folder) for folder in where)
            lost = FolderError(
                f"{printable(first)} was made from {name}, which is not below {told}: "
                "name its folder with --inputs"
            )
            yield FileFailure(first, lost)
        elif len(outputs_of) < len(names):
            lacks = next(name for name in names if name not in outputs_of)
            yield FileFailure(first, FolderError(f"{printable(own)} has no output in {lacks}: enhance it"))
        else:
            paths = {UNTOUCHED_CONDITION: own, **{name: outputs_of[name] for name in names}}
            yield ComparedPiece(place, paths, tuple(sidecar_path(path) for path in outputs_of.values()))


def pieces_from_conditions(folders: Sequence[Path]) -> Iterator[ComparedPiece | FileFailure]:
    """Pieces of condition folders: files of one name, whatever their suffixes."""
    if len(folders) < 2:
        raise CallError("one condition compares with nothing: name two folders or more")
    found: list[dict[str, Path]] = []
    for folder in folders:
        listed: dict[str, Path] = {}
        for path in find_audio_files(folder):
            place = path.relative_to(folder).with_suffix("").as_posix()
            if place in listed:
                raise FolderError(
                    f"{printable(path)} and {printable(listed[place])} are one piece by name: rename one"
                )
            listed[place] = path
        found.append(listed)
    names = _condition_names(folders)
    every = sorted(set().union(*found))
    if not any(all(place in listed for listed in found) for place in every):
        raise FolderError(
            f"no file name is in every folder of {', '.join(map(printable, folders))}: "
            "give the same pieces under the same names"
        )
    for place in every:
        paths = {name: listed.get(place) for name, listed in zip(names, found, strict=True)}
        whole = {name: path for name, path in paths.items() if path is not None}
        if len(whole) == len(names):
            yield ComparedPiece(place, whole)
            continue
        lacks = next(name for name, path in paths.items() if path is None)
        some = next(iter(whole.values()))
        yield FileFailure(some, FolderError(f"{printable(some)} has no counterpart in {lacks}: add it"))


def add_reference(
    candidates: Sequence[ComparedPiece | FileFailure], folder: Path
) -> list[ComparedPiece | FileFailure]:
    """The pieces with a reference each, by name, from a folder of its own."""
    listed = {p.relative_to(folder).with_suffix("").as_posix(): p for p in find_audio_files(folder)}
    name = folder.resolve().name
    made: list[ComparedPiece | FileFailure] = []
    for piece in candidates:
        if isinstance(piece, FileFailure) or name in piece.paths:
            made.append(piece)  # the reference may be one of the conditions
        elif piece.name in listed:
            paths = {name: listed[piece.name], **piece.paths}
            made.append(ComparedPiece(piece.name, paths, piece.recipes))
        else:
            lost = FolderError(f"{printable(folder)} has no reference named {printable(piece.name)}: add it")
            made.append(FileFailure(folder / piece.name, lost))
    return made


def _condition_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1 or name == UNTOUCHED_CONDITION:
            raise CallError(
                f"two conditions would be called {printable(name)}: name folders of different names"
            )
    return names


def _files_by_name(folders: Sequence[Path], names: set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for path in find_audio_files(folder):
            if printable(path.name) in names:
                found.setdefault(printable(path.name), []).append(path)
    return found


def _read_at_rate(path: Path, rate: int) -> NDArray[np.float32]:
    recording = read_recording(path, max_channels=MAX_STIMULUS_CHANNELS)
    return resample(recording.samples, recording.rate, rate)


def _measure_band_levels(wave: NDArray[np.float32], rate: int) -> torch.Tensor:
    mono = torch.from_numpy(wave.mean(axis=0, dtype=np.float64).astype(np.float32))
    return band_levels(mono, rate, _EFFECT_BANDS, _EFFECT_SPECTRUM)


def _mask_effect_db(path: Path, seconds: FloatArray) -> FloatArray:
    """Root mean square gain [frame] over the mask's rows, dB."""
    mask = recipe.load_recipe(path).mask.to_mask().load()
    gain = mask.gain_at(mask.hz, seconds)
    return np.asarray(np.sqrt(np.square(gain, dtype=np.float64).mean(axis=0)))
