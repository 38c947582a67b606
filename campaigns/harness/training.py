"""Trainings that last seconds."""

# As `--set NAME=VALUE`. Frequent checks, so that a killed training has been saved.
TINY_TRAINING = (
    "scorer.depth=2", "scorer.width=4", "scorer.crop_seconds=1.0", "training.steps=20",
    "training.check_every=2", "training.batch=8", "training.held_out=0.25",
    "priors.neighbours.frames=512", "priors.neighbours.codes=64", "priors.network.steps=20",
    "priors.network.width=8", "guide.steps=20", "guide.width=8",
)  # fmt: skip


def set_options(*assignments: str) -> list[str]:
    """Return the options of the command line that change settings."""
    return [word for assignment in assignments for word in ("--set", assignment)]
