"""The model: scorer, judge, priors' statistics, settings and card, to and from its file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tonewood.errors import ModelError, printable
from tonewood.files import container
from tonewood.files.card import ModelCard
from tonewood.files.output import write_bytes
from tonewood.masking.likeness import OutOfDomainDetector
from tonewood.masking.predictor import Predictor
from tonewood.masking.priors import Priors
from tonewood.scoring.guide import Guide
from tonewood.scoring.scorer import Scorer
from tonewood.settings import ModelSettings


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
        return container.model_digest(self.settings, raw)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model file, whole or not at all."""
        content = container.serialize_model(save_tensors(_model_tensors(self)), self.settings, self.card)
        write_bytes(Path(path), content, overwrite=overwrite)


def load_model(model: str | Path) -> Model:
    """Load a model file, or a bundled model by its name.

    Raises
    ------
    ModelError
        The file is missing, damaged, of an unknown version, or no model at all.
    """
    found = container.read_model_file(model)
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
            reference_likeness=OutOfDomainDetector.from_tensors(_tensors_below("reference_likeness.", tensors)),
            source_likeness=OutOfDomainDetector.from_tensors(_tensors_below("source_likeness.", tensors)),
            card=card,
            predictor=_restore_predictor(tensors, settings),
        )
    except (SafetensorError, KeyError, RuntimeError, ValueError):
        raise container.damaged_model_error(printable(str(model))) from None


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
