"""The command `dwcvmm`."""
