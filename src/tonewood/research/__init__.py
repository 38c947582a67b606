"""Reproduction of the paper, and search for the smallest sufficient scorer."""
