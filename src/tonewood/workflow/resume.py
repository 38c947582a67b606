"""Whether an earlier run made just what is asked for."""

from dataclasses import dataclass
from pathlib import Path

from tonewood.errors import RecipeError
from tonewood.files import recipe as recipes
from tonewood.files.audio import sha256
from tonewood.files.recipe import CarriedRecord, Recipe
from tonewood.settings import EnhanceSettings
from tonewood.workflow.layout import Job, beside


@dataclass(frozen=True)
class Wanted:
    """What decides an output: the recording's hash, the model's, the settings."""

    input_sha256: str
    model: str
    settings: EnhanceSettings
    carried: CarriedRecord | None = None

    def made(self, recipe: Recipe) -> bool:
        """Whether a recipe tells of just that."""
        return self == Wanted(
            recipe.input.sha256, recipe.model.digest, recipe.settings, recipe.carried
        )

    def done(self, job: Job, drawn: Path | None) -> Recipe | None:
        """Recipe of what an earlier run made; None if that is to be made, or another lies there."""
        recipe = self._told(job)
        if recipe is None or not job.output.exists():
            return None
        whole = recipe.output_sha256 == sha256(job.output)
        return recipe if whole and (drawn is None or drawn.exists()) else None

    def waits(self, job: Job) -> bool:
        """Whether a recipe of just that lies there without its sound.

        A run that was killed left it, or one that goes on beside this one is about to be done. So
        it stays until there is another like it to take its place.
        """
        return self._told(job) is not None and not job.output.exists()

    def _told(self, job: Job) -> Recipe | None:
        """The recipe that lies there, if it tells of just that."""
        try:
            recipe = recipes.load(beside(job.output))
        except RecipeError:
            return None
        return recipe if self.made(recipe) else None
