"""Where stimuli come from: an enhancement's outputs and their inputs, or a folder a condition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tonewood.errors import AudioError, CallError, FolderError, printable
from tonewood.files import recipe as recipes
from tonewood.files.audio import find_audio_files, read_recording, resample, file_sha256
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.signal.bands import band_levels, frame_levels
from tonewood.workflow.layout import FileFailure, sidecar_path

UNTOUCHED_CONDITION, ENHANCED_CONDITION = "untouched", "enhanced"
MAX_STIMULUS_CHANNELS = 2
_EFFECT_SPECTRUM, _EFFECT_BANDS = SpectrumSettings(), BandSettings()
_AUDIBLE_RANGE_DB = 45.0
_MAX_LENGTH_DIFFERENCE_S = 0.1

Floats = NDArray[np.float64]


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

    def effect_db(self, waves: dict[str, NDArray[np.float32]], rate: int) -> Floats:
        """How much the conditions differ at each analysis frame [frame], dB, where it sounds.

        What the mask did says it best; without recipes it is the root mean square difference of
        band levels between conditions.
        """
        analysed = [_measure_band_levels(wave, rate) for wave in waves.values()]
        frames = min(rows.shape[1] for rows in analysed)
        levels = torch.stack([rows[:, :frames] for rows in analysed])
        loudness = frame_levels(levels[0])
        audible = (loudness > loudness.max() - _AUDIBLE_RANGE_DB).numpy()
        if self.recipes:
            hop = _EFFECT_SPECTRUM.hop / _EFFECT_SPECTRUM.rate
            seconds = np.arange(frames, dtype=np.float64) * hop
            effects = [_mask_effect_db(path, seconds) for path in self.recipes]
            return np.asarray(np.mean(effects, axis=0) * audible, dtype=np.float64)
        spread = levels.std(dim=0, correction=0).square().mean(dim=0).sqrt()
        return np.asarray(spread.numpy() * audible, dtype=np.float64)


def pieces_from_outputs(folders: Sequence[Path], inputs: Sequence[Path] = ()) -> Iterator[ComparedPiece | FileFailure]:
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
            record = recipes.load_recipe(sidecar_path(path)).input
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


def add_reference(candidates: Sequence[ComparedPiece | FileFailure], folder: Path) -> list[ComparedPiece | FileFailure]:
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
            lost = FolderError(
                f"{printable(folder)} has no reference named {printable(piece.name)}: add it"
            )
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


def _mask_effect_db(path: Path, seconds: Floats) -> Floats:
    """Root mean square gain [frame] over the mask's rows, dB."""
    mask = recipes.load_recipe(path).mask.to_mask()
    gain = mask.gain_at(mask.hz, seconds)
    return np.asarray(np.sqrt(np.square(gain, dtype=np.float64).mean(axis=0)))
