"""Every speed lease, runnable by anyone: python -m benchmarks.NAME."""
