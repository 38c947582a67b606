"""Instruments that differ in one known thing, and what the table makes of them."""
