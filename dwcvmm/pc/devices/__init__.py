"""Devices in Python: those that guests seldom access. The busy ones are in cbits/pc."""
