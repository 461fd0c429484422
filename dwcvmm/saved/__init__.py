"""A saved machine: a directory from which it goes on (docs/save-restore.md)."""
