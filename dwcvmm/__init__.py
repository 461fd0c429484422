"""dwcvmm: run unmodified guests under double execution with comparison."""
