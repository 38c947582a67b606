"""Masks predicted from unpaired folders, from which a search starts."""
