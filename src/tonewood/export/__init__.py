"""Export a correction to other programs."""
