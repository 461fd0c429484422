"""A recording: a directory from which a run can be replayed (docs/replay.md)."""
