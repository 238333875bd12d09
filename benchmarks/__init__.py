"""Measurements of lockmodel beside other checkers, and of its engines beside each other: `python -m benchmarks`. See docs/benchmarks.md."""
