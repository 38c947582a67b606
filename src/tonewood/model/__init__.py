"""Model files and their cards."""
