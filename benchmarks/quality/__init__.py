"""Parts of `benchmarks/quality.py`: one module for each kind of row, and shared code."""
