"""The model file: scorer, judge, priors' statistics, settings and card in one safetensors file.

Tensors are data and metadata is JSON: loading executes nothing.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tonewood.errors import ModelError, shown
from tonewood.files.output import write_bytes
from tonewood.masking.likeness import Likeness
from tonewood.masking.predictor import Predictor
from tonewood.masking.priors import Priors
from tonewood.scoring.audit import Audit
from tonewood.scoring.guide import Guide
from tonewood.scoring.scorer import Scorer
from tonewood.settings import ModelSettings, Settings
from tonewood.signal.remedies import Fix

FORMAT_VERSION = 2
SUFFIX = ".tonewood"
_MAX_BYTES = 256 * 2**20


class Quartiles(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Tensor) -> "Quartiles":
        """Quartiles of values [n]."""
        return cls(
            *torch.quantile(values.double(), torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
        )


class ScorerCard(Settings):
    """How a scorer or judge does on takes that it never saw.

    The accuracy's 95 % interval counts takes, not windows: what a take has, all its windows have.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    windows: int
    takes: int
    calibration_error: float
    reference_scores: Quartiles
    source_scores: Quartiles
    parameters: int
    steps: int
    seed: int


class EarsCard(Settings):
    """What listeners taught, and how far the scorer agrees with them on what it never heard.

    Parameters
    ----------
    comparisons, ratings : int
        Answers, of recordings that fall into so many groups.
    learnt_from, held_out : int
        Answers on either side; what joins both sides is on neither.
    independent : int
        What the interval counts: held-out pairs of recordings, each once; of ratings, recordings.
    agreement : float
        Share of the held-out answers that the scorer orders alike; for ratings, of their pairs.
    """

    comparisons: int
    ratings: int
    recordings: int
    groups: int
    learnt_from: int
    held_out: int
    independent: int
    agreement: float
    agreement_interval: tuple[float, float]


class FolderCard(Settings):
    """What a training folder held."""

    name: str
    takes: int
    hours: float


class PriorCard(Settings):
    """The blend of priors that the cycle chose, and the cycle distance of every candidate, dB.

    Weights are the shares of static, neighbours, forward and backward network, and the share of
    the level that survives. Beliefs are in the neighbours' and the networks' masks, each in what
    it does from take to take and from moment to moment. The guide's gains are of the cycle
    distance, for every weight tried.
    """

    weights: tuple[float, float, float, float, float]
    beliefs: tuple[tuple[float, float], tuple[float, float]]
    cycle_db: tuple[tuple[tuple[float, float, float, float, float], float], ...]
    guide_weight: float
    guide_gains: tuple[tuple[float, float], ...]


class PredictorCard(Settings):
    """How a predictor does on takes that it never saw.

    It misses the masks of the whole method by so much, which themselves depart from the static
    one by so much, rms; and the cycle distances of nothing done, of the prior and of the
    predictor. All dB.
    """

    parameters: int
    takes: int
    missed_db: float
    spread_db: float
    cycle_db: tuple[float, float, float]


class Card(Settings):
    """What a model is made of and how well it does; travels inside the model file.

    The audit is of the recordings as they were learnt from, a fix applied. A model learnt from
    listeners alone has no prior; its folders are the halves of what they heard.
    """

    reference: FolderCard
    source: FolderCard
    scorer: ScorerCard
    judge: ScorerCard | None
    prior: PriorCard | None
    seconds: float
    seed: int
    versions: dict[str, str]
    domain: str = ""
    licence: str = ""
    notice: str = ""
    audit: Audit | None = None
    fix: Fix | None = None
    predictor: PredictorCard | None = None
    ears: EarsCard | None = None

    @model_serializer(mode="wrap")
    def _without_silence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what most models have nothing of, so that their files stay what they were."""
        told: dict[str, Any] = handler(self)
        if self.ears is None:
            told.pop("ears", None)
        return told


@dataclass(frozen=True, eq=False)
class Model:
    """All that `train` learns and `enhance` needs.

    Parameters
    ----------
    name : str
        For people: the file's stem.
    digest : str
        SHA-256 of settings and tensors; the card's seconds leave it alone.
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
    reference_likeness: Likeness
    source_likeness: Likeness
    card: Card
    predictor: Predictor | None = None

    @property
    def priors(self) -> Priors:
        """What masks start from; ModelError where there was no folder to learn it from."""
        if self.learnt_priors is None:
            raise self._unaided("prior none")
        return self.learnt_priors

    @property
    def guide(self) -> Guide:
        """The second neural loss; ModelError where there was no folder to learn it from."""
        if self.learnt_guide is None:
            raise self._unaided("set search.guide=0")
        return self.learnt_guide

    def _unaided(self, remedy: str) -> ModelError:
        return ModelError(
            f"{shown(self.name)} was learnt from listeners alone, and has neither priors nor a "
            f"guide: use --{remedy}"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of settings and tensors, hexadecimal; what the card says leaves it alone."""
        # Models without a predictor have the digest that they had before there were any.
        without = {"predictor"} if self.predictor is None else None
        hasher = hashlib.sha256(self.settings.model_dump_json(exclude=without).encode())
        for key, value in sorted(_tensors(self).items()):
            hasher.update(key.encode())
            hasher.update(value.numpy().tobytes())
        return hasher.hexdigest()

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model file, whole or not at all."""
        tensors = _tensors(self)
        settings, card = self.settings.model_dump_json(), self.card.model_dump_json()
        metadata = {
            "format": "tonewood",
            "version": str(FORMAT_VERSION),
            "settings": settings,
            "card": card,
            "sha256": _checksum(settings, card, tensors),
        }
        content = _ordered(save_tensors(tensors, metadata))
        write_bytes(Path(path), content, overwrite=overwrite)


def load(model: str | Path) -> Model:
    """Load a model file, or a bundled model by its name.

    Raises
    ------
    ModelError
        The file is missing, damaged, of an unknown version, or no model at all.
    """
    place = bundled().get(str(model)) or Path(model)
    what = shown(str(model))
    try:
        if isinstance(place, Path) and place.stat().st_size > _MAX_BYTES:
            raise ModelError(f"{what} is no Tonewood model: one is under {_MAX_BYTES >> 20} MB")
        content = place.read_bytes()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            names = ", ".join(bundled())
            raise ModelError(
                f"{what} is neither a model file nor a bundled model: give a path, or one of: "
                f"{names or 'none here'}"
            ) from None
        why = (error.strerror or str(error)).lower()
        raise ModelError(f"{what} cannot be read ({why}): check the file") from None
    metadata = _metadata(content, what)
    try:
        tensors = load_tensors(content)
        found = _checksum(metadata["settings"], metadata["card"], tensors)
        if metadata["sha256"] != found:
            raise _damaged(what)
        settings = ModelSettings.model_validate_json(metadata["settings"])
        card = Card.model_validate_json(metadata["card"])
        judge = _scorer(tensors, "judge.", settings) if card.judge else None
        return Model(
            name=Path(str(model)).stem,
            settings=settings,
            scorer=_scorer(tensors, "scorer.", settings),
            judge=judge,
            learnt_priors=Priors.from_tensors(
                _under("priors.", tensors), settings.priors, settings.spectrum.hop_ms
            )
            if card.prior
            else None,
            learnt_guide=_guide(tensors, settings) if card.prior else None,
            guide_weight=float(tensors["guide_weight"]),
            reference_likeness=Likeness.from_tensors(_under("reference_likeness.", tensors)),
            source_likeness=Likeness.from_tensors(_under("source_likeness.", tensors)),
            card=card,
            predictor=_predictor(tensors, settings),
        )
    except (SafetensorError, ValidationError, KeyError, RuntimeError, ValueError):
        raise _damaged(what) from None


def bundled() -> dict[str, Traversable]:
    """Models that come with Tonewood, by name."""
    folder = resources.files("tonewood.bundled")
    return {
        item.name.removesuffix(SUFFIX): item
        for item in sorted(folder.iterdir(), key=lambda item: item.name)
        if item.name.endswith(SUFFIX)
    }


def _metadata(content: bytes, what: str) -> dict[str, str]:
    """Check the header by hand first, so that another kind of file is called what it is."""
    if len(content) < 8:
        raise _damaged(what)
    (length,) = struct.unpack("<Q", content[:8])
    try:
        if length > len(content) - 8:
            raise ValueError
        metadata: Any = json.loads(content[8 : 8 + length]).get("__metadata__")
        if metadata.get("format") != "tonewood":
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise _damaged(what) from None
    if metadata.get("version") != str(FORMAT_VERSION):
        raise ModelError(
            f"{what} has format version {metadata.get('version')}; this Tonewood reads "
            f"{FORMAT_VERSION}: update Tonewood or train the model again"
        )
    return dict(metadata)


def _ordered(content: bytes) -> bytes:
    """The same file with its header sorted: safetensors writes metadata in a random order."""
    (length,) = struct.unpack("<Q", content[:8])
    head = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    head += b" " * (-len(head) % 8)  # tensors start at a multiple of 8 bytes
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


def _checksum(settings: str, card: str, tensors: dict[str, Tensor]) -> str:
    hasher = hashlib.sha256(f"{settings}\n{card}\n".encode())
    for name, value in sorted(tensors.items()):
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hasher.update(value.numpy().tobytes())
    return hasher.hexdigest()


def _damaged(what: str) -> ModelError:
    return ModelError(f"{what} is not a Tonewood model, or is damaged: train or fetch it again")


def _tensors(model: Model) -> dict[str, Tensor]:
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
        cloud: Likeness = getattr(model, name)
        named |= {f"{name}.{k}": v for k, v in cloud.tensors().items()}
    return {name: value.contiguous() for name, value in named.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _scorer(tensors: dict[str, Tensor], prefix: str, settings: ModelSettings) -> Scorer:
    scorer = Scorer(settings.scorer, settings.spectrum, torch.Generator())
    scorer.load_state_dict(_under(prefix, tensors))
    return scorer.requires_grad_(False).eval()


def _predictor(tensors: dict[str, Tensor], settings: ModelSettings) -> Predictor | None:
    if not settings.predictor.taught:
        return None
    own = _under("predictor.", tensors)
    return Predictor.from_tensors(own, settings.predictor, settings.spectrum.hop_ms)


def _guide(tensors: dict[str, Tensor], settings: ModelSettings) -> Guide:
    rows = tensors["guide.row_mean"].shape[0]
    guide = Guide(rows, settings.guide, torch.Generator())
    guide.load_state_dict(_under("guide.", tensors))
    return guide.requires_grad_(False).eval()
