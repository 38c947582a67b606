"""The model: scorer, judge, priors' statistics, settings and card, to and from its file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from tonewood.errors import ModelError, shown
from tonewood.files import container
from tonewood.files.card import Card
from tonewood.files.output import write_bytes
from tonewood.masking.likeness import Likeness
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
        raw = {name: it.numpy().tobytes() for name, it in _tensors(self).items()}
        return container.digest(self.settings, raw)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model file, whole or not at all."""
        content = container.sealed(save_tensors(_tensors(self)), self.settings, self.card)
        write_bytes(Path(path), content, overwrite=overwrite)


def load(model: str | Path) -> Model:
    """Load a model file, or a bundled model by its name.

    Raises
    ------
    ModelError
        The file is missing, damaged, of an unknown version, or no model at all.
    """
    found = container.read(model)
    settings, card = found.settings, found.card
    try:
        tensors = load_tensors(found.content)
        return Model(
            name=found.name,
            settings=settings,
            scorer=_scorer(tensors, "scorer.", settings),
            judge=_scorer(tensors, "judge.", settings) if card.judge else None,
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
    except (SafetensorError, KeyError, RuntimeError, ValueError):
        raise container.damaged(shown(str(model))) from None


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
