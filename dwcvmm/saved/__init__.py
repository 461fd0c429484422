"""A saved machine: a directory from which it goes on (docs/save-restore.md); and a recording (docs/replay.md)."""
