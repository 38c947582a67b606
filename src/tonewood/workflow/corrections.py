"""What a recipe or a model does on the whole, as one mask: for `diff` and `export`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonewood.errors import printable
from tonewood.files import modelfile
from tonewood.files import recipe as recipes
from tonewood.files.modelfile import Model
from tonewood.files.recipe import Recipe
from tonewood.masking.aspects import static_component
from tonewood.masking.mask import Mask
from tonewood.masking.render import effective_mask
from tonewood.settings import RenderSettings
from tonewood.signal.bands import center_frequencies
from tonewood.signal.spectrum import FloatArray
from tonewood.workflow.layout import sidecar_path


@dataclass(frozen=True)
class Correction:
    """A correction, as it is in force.

    Parameters
    ----------
    name : str
        As it was asked for.
    mask : Mask
        A recipe's: its aspect and amount applied. A model's: its static mask, one frame.
    gain_db : float
        Of the whole output, which matched its loudness; 0 of a model.
    recipe : Recipe or None
    """

    name: str
    mask: Mask
    gain_db: float
    recipe: Recipe | None = None

    @property
    def seconds(self) -> float | None:
        """Length of the recording; None of a model."""
        return self.recipe.input.samples / self.recipe.input.rate if self.recipe else None

    def average_db(self, hz: FloatArray) -> FloatArray:
        """Mean over time [frequency], dB, the output's gain left out."""
        one = static_component(self.mask)
        return one.gain_at(hz, np.zeros(1))[:, 0].astype(np.float64)


def load_correction(name: str) -> Correction:
    """Read a recipe (or that beside an output), a model file, or a bundled model by its name.

    Raises
    ------
    RecipeError, ModelError
        It is neither, or damaged.
    """
    path = Path(name)
    if sidecar_path(path).is_file():
        path = sidecar_path(path)
    if path.suffix.lower() == ".json":
        return correction_of_recipe(printable(name), recipes.load_recipe(path))
    return correction_of_model(printable(name), modelfile.load_model(name))


def correction_of_recipe(name: str, recipe: Recipe) -> Correction:
    """What a recipe did to its recording."""
    mask = effective_mask(recipe.mask.to_lazy_mask(), recipe.settings.render, recipe.spectrum)
    return Correction(name, mask.to_mask(), recipe.gain_db, recipe)


def correction_of_model(name: str, model: Model) -> Correction:
    """What a model does to all recordings alike: its static mask."""
    spectrum = model.settings.spectrum
    mask = Mask(
        model.priors.static_db.numpy()[:, None].astype(np.float32),
        center_frequencies(model.settings.scorer.bands, spectrum),
        spectrum.hop / spectrum.rate,
        spectrum.rate / 2,
    )
    return Correction(name, mask.clip(RenderSettings().max_gain_db), 0.0)
