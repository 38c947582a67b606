"""Evaluation against recordings of the wanted sound."""
