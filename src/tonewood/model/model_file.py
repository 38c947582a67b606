"""Model file: a safetensors file whose metadata hold settings, card and a checksum.

Tensors are data and metadata are JSON, so reading a file executes no code in it. This module does not load
the networks, so that commands which only show a card start fast.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tonewood.errors import ModelError, failure_reason, printable
from tonewood.model.card import ModelCard
from tonewood.settings import ModelSettings
from tonewood.utils.files import read_regular

FORMAT_VERSION = 2
MODEL_SUFFIX = ".tonewood"
# A model has about 1 MB. Larger files are refused unread, and larger headers unparsed: JSON grows in memory.
_MAX_MODEL_BYTES, _MAX_HEADER_BYTES = 256 * 2**20, 2**20

# The checksum contains torch's names of the dtypes; other names would make existing files invalid.
_DTYPE_NAMES = {
    "F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "I64": "torch.int64",
    "I32": "torch.int32", "I16": "torch.int16", "BOOL": "torch.bool",
}  # fmt: skip
_NUMPY_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "BOOL": "?"
}  # fmt: skip


class TensorRecord(NamedTuple):
    """Tensor of a file; its data are little-endian and in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> NDArray[Any]:
        """Return the tensor as an array that shares the data."""
        return np.frombuffer(self.data, _NUMPY_DTYPES[self.dtype]).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """Content of a model file, with its checksum verified."""

    name: str  # stem of the file's name
    content: bytes  # the whole file
    settings: ModelSettings
    card: ModelCard
    tensors: Mapping[str, TensorRecord]

    @property
    def has_way_guide(self) -> bool:
        """True if the model has a whole-way guide."""
        return any(name.startswith("way_guide.") for name in self.tensors)

    @property
    def digest(self) -> str:
        """Digest of the `Model` in this file; see `model_digest`."""
        return model_digest(self.settings, {name: tensor.data for name, tensor in self.tensors.items()})


def read_model_file(model: str | Path) -> ModelFile:
    """Read a model file, or a bundled model by its name, and verify its checksum.

    ModelError if the file does not exist, is damaged, has an unknown version, or is not a model.
    """
    path = bundled_models().get(str(model)) or Path(model)
    name = printable(str(model))
    content = _read_bytes(path, name)
    try:
        metadata = split_header(content)[0]["__metadata__"]
        # The version comes first, because other versions may compute the checksum differently.
        if metadata.get("format") != "tonewood":
            raise damaged_model_error(name)
        if metadata.get("version") != str(FORMAT_VERSION):
            raise ModelError(
                f"{name} has format version {metadata.get('version')}; this Tonewood reads "
                f"{FORMAT_VERSION}: update Tonewood or train the model again"
            )
        tensors = read_tensors(content)
        settings, card = metadata["settings"], metadata["card"]
        if metadata["sha256"] != model_checksum(settings, card, tensors):
            raise damaged_model_error(name)
        return ModelFile(
            name=Path(str(model)).stem,
            content=content,
            settings=ModelSettings.model_validate_json(settings),
            card=ModelCard.model_validate_json(card),
            tensors=tensors,
        )
    # The metadata may hold anything, hence all errors of access to it; ValidationError is a ValueError.
    except (SafetensorError, RecursionError, ValueError, KeyError, TypeError, AttributeError):
        raise damaged_model_error(name) from None


def serialize_model(arrays: Mapping[str, NDArray[Any]], settings: ModelSettings, card: ModelCard) -> bytes:
    """Return a model file from the tensors of a model; the same model gives the same bytes."""
    content = serialize_tensors(arrays)
    header, data = split_header(content)
    settings_json, card_json = settings.model_dump_json(), card.model_dump_json()
    header["__metadata__"] = {
        "format": "tonewood",
        "version": str(FORMAT_VERSION),
        "settings": settings_json,
        "card": card_json,
        "sha256": model_checksum(settings_json, card_json, read_tensors(content)),
    }
    # Sorted, because safetensors does not fix the order of the keys.
    head = json.dumps(header, sort_keys=True).encode()
    head += b" " * (-len(head) % 8)  # safetensors aligns tensors to 8 bytes
    return struct.pack("<Q", len(head)) + head + data


def model_digest(settings: ModelSettings, tensors: Mapping[str, bytes]) -> str:
    """Return the hexadecimal SHA-256 of settings and tensors; the card does not change it."""
    # Settings that earlier versions did not have are left out where they are the default, so that the
    # digests in earlier recipes hold.
    excluded: dict[str, bool | set[str]] = {}
    if not settings.predictor.taught:
        excluded["predictor"] = True
    if settings.training.targets == "graded":
        excluded["training"] = {"targets"}
    hasher = hashlib.sha256(settings.model_dump_json(exclude=excluded).encode())
    for name, data in sorted(tensors.items()):
        hasher.update(name.encode())
        hasher.update(data)
    return hasher.hexdigest()


def model_checksum(settings: str, card: str, tensors: Mapping[str, TensorRecord]) -> str:
    """Return the hexadecimal SHA-256 of a model file's content, with settings and card as JSON."""
    hasher = hashlib.sha256(f"{settings}\n{card}\n".encode())
    for name, (dtype, shape, data) in sorted(tensors.items()):
        hasher.update(f"{name} {_DTYPE_NAMES[dtype]} {shape}\n".encode())
        hasher.update(data)
    return hasher.hexdigest()


def bundled_models() -> dict[str, Traversable]:
    """Return the models that come with Tonewood, by name."""
    folder = resources.files("tonewood.bundled")
    return {
        item.name.removesuffix(MODEL_SUFFIX): item
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(MODEL_SUFFIX)
    }


def damaged_model_error(name: str) -> ModelError:
    """Return the error for a file that is not a model, or is damaged."""
    remedy = (
        "train or fetch it again"
        if name.endswith(MODEL_SUFFIX)
        else f"name a model file, such as cello{MODEL_SUFFIX}, or a bundled model"
    )
    return ModelError(f"{name} is not a Tonewood model, or is damaged: {remedy}")


def split_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a safetensors file; ValueError for any other content."""
    if len(content) < 8:
        raise ValueError
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise ValueError
    header: Any = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError
    return header, content[8 + length :]


def serialize_tensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return a safetensors file of arrays, without metadata."""
    return save(dict(arrays))


def read_tensors(content: bytes) -> dict[str, TensorRecord]:
    """Return the tensors of a safetensors file in the order of their data; SafetensorError if damaged."""
    return {
        name: TensorRecord(tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in deserialize(content)  # type: ignore[no-untyped-call]
    }


def _read_bytes(path: Traversable, name: str) -> bytes:
    try:
        if isinstance(path, Path) and path.stat().st_size > _MAX_MODEL_BYTES:
            raise ModelError(f"{name} is not a Tonewood model: one has less than {_MAX_MODEL_BYTES >> 20} MB")
        return read_regular(path) if isinstance(path, Path) else path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{name} is neither a model file nor a bundled model: give a path, or one of: "
            f"{', '.join(bundled_models()) or 'none here'}"
        ) from None
    except OSError as error:
        reason = failure_reason(error)
        raise ModelError(f"{name} cannot be read ({reason}): check the file") from None
