"""Fault injection campaigns: a golden run, a list of faults from a seed, runs, classes, bounds."""
