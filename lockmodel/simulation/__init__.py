"""Seeded random schedules of a system: for what is too large to search."""
