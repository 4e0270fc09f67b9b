"""A benchmark for every claim about speed: python -m benchmarks.NAME."""
