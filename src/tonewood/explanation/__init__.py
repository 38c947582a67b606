"""Explain what the scorer responds to."""
