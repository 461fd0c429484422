"""Faults: what flips where and when, and the act of flipping it."""
