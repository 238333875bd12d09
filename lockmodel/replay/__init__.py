"""Replays of a trace on real Postgres: the script, the driver that performs it, and the throw-away server."""
