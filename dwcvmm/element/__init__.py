"""Elements: the loop in C, and what Python decides when it stops."""
