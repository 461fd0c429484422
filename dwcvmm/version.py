"""The version of dwcvmm, which pyproject.toml takes from here: to ask for an installed package's takes 40 ms."""

VERSION = "0.1.0"
