"""Only the part that pyproject.toml cannot say: the C core."""

from setuptools import setup

setup(cffi_modules=["cbits/build_core.py:ffibuilder"])
