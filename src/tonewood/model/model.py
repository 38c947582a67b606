"""The model: scorer, judge, priors' statistics, settings and card, to and from its file.

The model file as bytes: a safetensors file whose metadata holds settings, card and checksum.

Tensors are data and metadata is JSON: reading executes nothing, and loads no torch.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tonewood.errors import ModelError, printable
from tonewood.mask.certificate import OutOfDomainDetector
from tonewood.model.card import ModelCard
from tonewood.priors.predictor import Predictor
from tonewood.priors.priors import Priors
from tonewood.scorer.guide import Guide
from tonewood.scorer.network import Scorer
from tonewood.settings import ModelSettings
from tonewood.utils.atomic_write import write_bytes

FORMAT_VERSION = 2
MODEL_SUFFIX = ".tonewood"
_MAX_MODEL_BYTES = 256 * 2**20
_MAX_HEADER_BYTES = 2**20

# Kinds of number by their safetensors names: the name that checksums know, and bytes of each.
_DTYPES = {
    "F64": ("torch.float64", 8),
    "F32": ("torch.float32", 4),
    "F16": ("torch.float16", 2),
    "I64": ("torch.int64", 8),
    "I32": ("torch.int32", 4),
    "I16": ("torch.int16", 2),
    "BOOL": ("torch.bool", 1),
}


class TensorRecord(NamedTuple):
    """One tensor of a file, its numbers little-endian and in order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What a model file says of itself; `model_digest` is its `Model`'s."""

    name: str
    settings: ModelSettings
    card: ModelCard
    digest: str


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model file that was read and found whole.

    Parameters
    ----------
    name : str
        For people: the file's stem.
    content : bytes
        All of the file.
    tensors : mapping of str to Part
    """

    name: str
    content: bytes
    settings: ModelSettings
    card: ModelCard
    tensors: Mapping[str, TensorRecord]

    def info(self) -> ModelInfo:
        """Settings, card and digest."""
        raw: dict[str, bytes | memoryview]
        raw = {name: part.data for name, part in self.tensors.items()}
        return ModelInfo(self.name, self.settings, self.card, model_digest(self.settings, raw))


def read_model_file(model: str | Path) -> ModelFile:
    """Read a model file, or a bundled model by its name, and check that it is whole.

    Raises
    ------
    ModelError
        The file is missing, damaged, of an unknown version, or no model at all.
    """
    place = bundled_models().get(str(model)) or Path(model)
    what = printable(str(model))
    try:
        if isinstance(place, Path) and place.stat().st_size > _MAX_MODEL_BYTES:
            raise ModelError(f"{what} is no Tonewood model: one is under {_MAX_MODEL_BYTES >> 20} MB")
        content = place.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            names = ", ".join(bundled_models())
            raise ModelError(
                f"{what} is neither a model file nor a bundled model: give a path, or one of: "
                f"{names or 'none here'}"
            ) from None
        why = (error.strerror or str(error)).lower()
        raise ModelError(f"{what} cannot be read ({why}): check the file") from None
    try:
        header, data = _split_safetensors(content)
        metadata = header.pop("__metadata__")
        if metadata.get("format") != "tonewood":
            raise ValueError
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise damaged_model_error(what) from None
    if metadata.get("version") != str(FORMAT_VERSION):
        raise ModelError(
            f"{what} has format version {metadata.get('version')}; this Tonewood reads "
            f"{FORMAT_VERSION}: update Tonewood or train the model again"
        )
    try:
        parts = _parse_tensors(header, data)
        settings, card = metadata["settings"], metadata["card"]
        if metadata["sha256"] != _model_checksum(settings, card, parts):
            raise damaged_model_error(what)
        return ModelFile(
            name=Path(str(model)).stem,
            content=content,
            settings=ModelSettings.model_validate_json(settings),
            card=ModelCard.model_validate_json(card),
            tensors=parts,
        )
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        raise damaged_model_error(what) from None


def serialize_model(content: bytes, settings: ModelSettings, card: ModelCard) -> bytes:
    """A safetensors file made a model file: with metadata and checksum, its header sorted."""
    header, data = _split_safetensors(content)
    texts = settings.model_dump_json(), card.model_dump_json()
    metadata = {
        "format": "tonewood",
        "version": str(FORMAT_VERSION),
        "settings": texts[0],
        "card": texts[1],
        "sha256": _model_checksum(*texts, _parse_tensors(header, data)),
    }
    head = json.dumps({**header, "__metadata__": metadata}, sort_keys=True).encode()
    head += b" " * (-len(head) % 8)  # tensors start at a multiple of 8 bytes
    return struct.pack("<Q", len(head)) + head + data


def model_digest(settings: ModelSettings, tensors: Mapping[str, bytes | memoryview]) -> str:
    """SHA-256 of settings and tensors, hexadecimal; what the card says leaves it alone."""
    # Models without a predictor have the digest that they had before there were any.
    without = None if settings.predictor.taught else {"predictor"}
    hasher = hashlib.sha256(settings.model_dump_json(exclude=without).encode())
    for name, data in sorted(tensors.items()):
        hasher.update(name.encode())
        hasher.update(data)
    return hasher.hexdigest()


def bundled_models() -> dict[str, Traversable]:
    """Models that come with Tonewood, by name."""
    folder = resources.files("tonewood.bundled")
    return {
        item.name.removesuffix(MODEL_SUFFIX): item
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(MODEL_SUFFIX)
    }


def damaged_model_error(name: str) -> ModelError:
    """What is said of a file that is no model, or no longer one."""
    return ModelError(f"{name} is not a Tonewood model, or is damaged: train or fetch it again")


def _split_safetensors(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and data of a safetensors file; ValueError where it is none."""
    if len(content) < 8:
        raise ValueError
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise ValueError
    header: Any = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError
    return header, memoryview(content)[8 + length :]


def _parse_tensors(header: dict[str, Any], data: memoryview) -> dict[str, TensorRecord]:
    """Tensors that a header names, nothing of the data left over; ValueError where they lie."""
    parts, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        counted = all(type(size) is int and size >= 0 for size in (*shape, first, last))
        if not counted or first != end or last > len(data):
            raise ValueError
        if last - first != math.prod(shape) * _DTYPES[entry["dtype"]][1]:
            raise ValueError
        parts[name], end = TensorRecord(entry["dtype"], shape, data[first:last]), last
    if end != len(data):
        raise ValueError
    return parts


def _model_checksum(settings: str, card: str, tensors: Mapping[str, TensorRecord]) -> str:
    hasher = hashlib.sha256(f"{settings}\n{card}\n".encode())
    for name, (kind, shape, data) in sorted(tensors.items()):
        hasher.update(f"{name} {_DTYPES[kind][0]} {shape}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class Model:
    """All that `train` learns and `enhance` needs.

    Parameters
    ----------
    name : str
        For people: the file's stem.
    learnt_priors, learnt_guide : Priors, Guide or None
        None for a model learnt from listeners alone.
    predictor : Predictor or None
        None in models that were not taught one.
    """

    name: str
    settings: ModelSettings
    scorer: Scorer
    judge: Scorer | None
    learnt_priors: Priors | None
    learnt_guide: Guide | None
    guide_weight: float
    reference_likeness: OutOfDomainDetector
    source_likeness: OutOfDomainDetector
    card: ModelCard
    predictor: Predictor | None = None

    @property
    def priors(self) -> Priors:
        """What masks start from; ModelError where there was no folder to learn it from."""
        if self.learnt_priors is None:
            raise self._missing_part_error("prior none")
        return self.learnt_priors

    @property
    def guide(self) -> Guide:
        """The second neural loss; ModelError where there was no folder to learn it from."""
        if self.learnt_guide is None:
            raise self._missing_part_error("set search.guide=0")
        return self.learnt_guide

    def _missing_part_error(self, remedy: str) -> ModelError:
        return ModelError(
            f"{printable(self.name)} was learnt from listeners alone, and has neither priors nor a "
            f"guide: use --{remedy}"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of settings and tensors, hexadecimal; what the card says leaves it alone."""
        raw = {name: it.numpy().tobytes() for name, it in _model_tensors(self).items()}
        return model_digest(self.settings, raw)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model file, whole or not at all."""
        content = serialize_model(save_tensors(_model_tensors(self)), self.settings, self.card)
        write_bytes(Path(path), content, overwrite=overwrite)


def load_model(model: str | Path) -> Model:
    """Load a model file, or a bundled model by its name.

    Raises
    ------
    ModelError
        The file is missing, damaged, of an unknown version, or no model at all.
    """
    found = read_model_file(model)
    settings, card = found.settings, found.card
    try:
        tensors = load_tensors(found.content)
        return Model(
            name=found.name,
            settings=settings,
            scorer=_restore_scorer(tensors, "scorer.", settings),
            judge=_restore_scorer(tensors, "judge.", settings) if card.judge else None,
            learnt_priors=Priors.from_tensors(
                _tensors_below("priors.", tensors), settings.priors, settings.spectrum.hop_ms
            )
            if card.prior
            else None,
            learnt_guide=_restore_guide(tensors, settings) if card.prior else None,
            guide_weight=float(tensors["guide_weight"]),
            reference_likeness=OutOfDomainDetector.from_tensors(
                _tensors_below("reference_likeness.", tensors)
            ),
            source_likeness=OutOfDomainDetector.from_tensors(_tensors_below("source_likeness.", tensors)),
            card=card,
            predictor=_restore_predictor(tensors, settings),
        )
    except (SafetensorError, KeyError, RuntimeError, ValueError):
        raise damaged_model_error(printable(str(model))) from None


def _model_tensors(model: Model) -> dict[str, Tensor]:
    named = {f"scorer.{k}": v for k, v in model.scorer.state_dict().items()}
    if model.judge is not None:
        named |= {f"judge.{k}": v for k, v in model.judge.state_dict().items()}
    if model.learnt_priors is not None:
        named |= {f"priors.{k}": v for k, v in model.learnt_priors.tensors().items()}
    if model.learnt_guide is not None:
        named |= {f"guide.{k}": v for k, v in model.learnt_guide.state_dict().items()}
    if model.predictor is not None:
        named |= {f"predictor.{k}": v for k, v in model.predictor.tensors().items()}
    named["guide_weight"] = torch.tensor(model.guide_weight, dtype=torch.float64)
    for name in ("reference_likeness", "source_likeness"):
        cloud: OutOfDomainDetector = getattr(model, name)
        named |= {f"{name}.{k}": v for k, v in cloud.tensors().items()}
    return {name: value.contiguous() for name, value in named.items()}


def _tensors_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore_scorer(tensors: dict[str, Tensor], prefix: str, settings: ModelSettings) -> Scorer:
    scorer = Scorer(settings.scorer, settings.spectrum, torch.Generator())
    scorer.load_state_dict(_tensors_below(prefix, tensors))
    return scorer.requires_grad_(False).eval()


def _restore_predictor(tensors: dict[str, Tensor], settings: ModelSettings) -> Predictor | None:
    if not settings.predictor.taught:
        return None
    own = _tensors_below("predictor.", tensors)
    return Predictor.from_tensors(own, settings.predictor, settings.spectrum.hop_ms)


def _restore_guide(tensors: dict[str, Tensor], settings: ModelSettings) -> Guide:
    rows = tensors["guide.row_mean"].shape[0]
    guide = Guide(rows, settings.guide, torch.Generator())
    guide.load_state_dict(_tensors_below("guide.", tensors))
    return guide.requires_grad_(False).eval()
