"""The parts of `benchmarks/quality.py`: one module for each kind of row, and what they share."""
