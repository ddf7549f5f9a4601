"""Benchmarks: what a part of the pipeline costs, beside something that it can be held against."""
