"""The ratios that justify design decisions: `python -m benchmarks`."""
