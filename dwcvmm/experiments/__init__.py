"""Machines that are run to measure: check, bench, soak, doctor."""
