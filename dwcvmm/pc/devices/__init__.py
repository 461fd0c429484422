"""Devices in Python: those that Linux seldom talks to. The busy ones are in cbits."""
