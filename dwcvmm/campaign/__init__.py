"""Fault injection campaigns: golden runs, a list of faults drawn from a seed, runs, outcome classes, bounds."""
