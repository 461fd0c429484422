"""Runs machines to measure: check, bench, soak, doctor."""
