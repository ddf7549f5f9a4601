"""Benchmarks: the cost of a part of the pipeline, compared with a peer or a baseline."""
