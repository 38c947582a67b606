"""Blind listening tests: built from outputs, served as a page, answers kept and summed up."""
