"""The terminal of a run: keys, the guest's output, signals, the time limit."""
