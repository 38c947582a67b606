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
        """Recipe of what an earlier run made; None if that is to be made, or another lies there.

        A recipe that waits for its sound, as a run that was killed leaves it, goes.
        """
        side = beside(job.output)
        try:
            recipe = recipes.load(side)
        except RecipeError:
            return None
        if not self.made(recipe):
            return None
        if not job.output.exists():
            for path in filter(None, (drawn, side)):
                path.unlink(missing_ok=True)
            return None
        whole = recipe.output_sha256 == sha256(job.output)
        return recipe if whole and (drawn is None or drawn.exists()) else None
