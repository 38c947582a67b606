"""Instruments with one known difference, and their results in the table."""
