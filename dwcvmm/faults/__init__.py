"""Faults: what flips, where and when; and flipping it."""
