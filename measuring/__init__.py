"""Measuring how fast we are: what `tools/benchmark.py` prints."""
