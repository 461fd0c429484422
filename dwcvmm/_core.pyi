"""The C core (cbits), built by cffi: its structures are typed by C, not by Python."""

from typing import Any

ffi: Any
lib: Any
