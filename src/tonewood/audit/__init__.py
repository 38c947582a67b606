"""Audit what separates two folders besides the instrument."""
