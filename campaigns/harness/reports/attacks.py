"""Rows."""

from campaigns.harness.reports.rows import Row

ROWS: tuple[Row, ...] = ()
