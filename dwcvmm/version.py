"""The version of dwcvmm: read once, and before a sandbox lets no file be opened."""

from importlib.metadata import version

VERSION = version("dwcvmm")
