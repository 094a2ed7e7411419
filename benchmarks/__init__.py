"""Benchmarks: figures with ratios measured in one run, never timed tests."""
