"""A model's scorer as a loss over waveforms, for the training of other networks."""

from pathlib import Path

from tonewood.model.model import Model, load_model
from tonewood.scorer.losses import ScorerFeatureLoss, ScorerLoss


class _ModelLoss:
    """Base class of losses that takes a model, file or name instead of a scorer."""

    def __init__(
        self,
        model: Model | str | Path = "cello",
        rate: int = 16_000,
        reduction: str = "mean",
    ) -> None:
        loaded = model if isinstance(model, Model) else load_model(model)
        # The next class in the order of resolution is the loss of a scorer, which mypy cannot know here.
        super().__init__(loaded.scorer, rate, reduction)  # type: ignore[call-arg]


class NeuralLoss(_ModelLoss, ScorerLoss):
    """A model's frozen scorer as a differentiable loss over [batch, channels, samples].

    Parameters
    ----------
    model : Model, path or name
    rate : int
        Sample rate of the waveforms in Hz, at least 4000; they are resampled if necessary.
    reduction : {"mean", "sum", "none"}
    """


class FeatureLoss(_ModelLoss, ScorerFeatureLoss):
    """Distance from a target in the features of a model's scorer, over [batch, channels, samples].

    It has the parameters of `NeuralLoss`, and is called with waveform and target.
    """
