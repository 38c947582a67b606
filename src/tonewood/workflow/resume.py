"""Whether an earlier run made just what is asked for."""

from dataclasses import dataclass
from pathlib import Path

from tonewood.errors import RecipeError
from tonewood.files import recipe as recipes
from tonewood.files.audio import file_sha256
from tonewood.files.recipe import TransferRecord, Recipe
from tonewood.settings import EnhanceSettings
from tonewood.workflow.layout import FileJob, sidecar_path


@dataclass(frozen=True)
class OutputKey:
    """What decides an output: the recording's hash, the model's, the settings."""

    input_sha256: str
    model: str
    settings: EnhanceSettings
    carried: TransferRecord | None = None

    def matches(self, recipe: Recipe) -> bool:
        """Whether a recipe tells of just that."""
        return self == OutputKey(
            recipe.input.sha256, recipe.model.digest, recipe.settings, recipe.carried
        )

    def find_finished(self, job: FileJob, picture: Path | None) -> Recipe | None:
        """Recipe of what an earlier run made; None if that is to be made, or another lies there."""
        recipe = self._matching_recipe(job)
        if recipe is None or not job.output.exists():
            return None
        whole = recipe.output_sha256 == file_sha256(job.output)
        return recipe if whole and (picture is None or picture.exists()) else None

    def is_unfinished(self, job: FileJob) -> bool:
        """Whether a recipe of just that lies there without its sound.

        A run that was killed left it, or one that goes on beside this one is about to be done. So
        it stays until there is another like it to take its place.
        """
        return self._matching_recipe(job) is not None and not job.output.exists()

    def _matching_recipe(self, job: FileJob) -> Recipe | None:
        """The recipe that lies there, if it tells of just that."""
        try:
            recipe = recipes.load_recipe(sidecar_path(job.output))
        except RecipeError:
            return None
        return recipe if self.matches(recipe) else None
