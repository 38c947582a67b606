"""Python interface to differentiable losses: a model's scorer in the training of other networks (torch)."""

from pathlib import Path

from tonewood.api import as_model
from tonewood.model.model import Model
from tonewood.scorer import losses


class _ModelLoss:
    """Base class of losses that takes a model, file or name instead of a scorer."""

    def __init__(
        self,
        model: Model | str | Path = "cello",
        rate: int = 16_000,
        reduction: str = "mean",
    ) -> None:
        # The next class in the order of resolution is the loss of a scorer, which mypy cannot know here.
        super().__init__(as_model(model).scorer, rate, reduction)  # type: ignore[call-arg]


class NeuralLoss(_ModelLoss, losses.ScorerLoss):
    """A model's frozen scorer as a differentiable loss over [batch, channels, samples].

    Parameters
    ----------
    model : Model, path or name
    rate : int
        Sample rate of the waveforms in Hz, at least 4000; they are resampled if necessary.
    reduction : {"mean", "sum", "none"}
    """


class FeatureLoss(_ModelLoss, losses.ScorerFeatureLoss):
    """Distance from a target in the features of a model's scorer, over [batch, channels, samples].

    It has the parameters of `NeuralLoss`, and is called with waveform and target.
    """
