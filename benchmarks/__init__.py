"""Every speed claim, runnable by anyone: python -m benchmarks.NAME."""
