"""The packed engines: exact breadth-first search on bits and small integers, compiled by numba."""
