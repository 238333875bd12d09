"""Outward forms of a check: one format a file."""
