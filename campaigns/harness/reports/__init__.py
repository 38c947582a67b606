"""Rows of the campaign of reports."""
