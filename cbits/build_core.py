"""Build dwcvmm._core: the C core as a cffi API-mode module. setuptools runs this (setup.py)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
CDEFS = ("kvm.cdef", "devices.cdef", "core.cdef")
FOLDERS = (".", "element", "sites", "memory", "replica", "record", "vcpu", "pc")
SOURCES = [f"cbits/{path.relative_to(HERE)}" for folder in FOLDERS for path in sorted((HERE / folder).glob("[!_]*.c"))]
HEADERS = sorted(HERE.rglob("*.h"))

# <linux/kvm.h> ends these two with a flexible array; Python wants a buffer of fixed room.
PREAMBLE = (
    "".join(f'#include "{path.relative_to(HERE)}"\n' for path in HEADERS)
    + """
struct dwc_cpuid { uint32_t nent, padding; struct kvm_cpuid_entry2 entries[256]; };
struct dwc_msr_list { uint32_t nmsrs; uint32_t indices[1024]; };
"""
)

ffibuilder = FFI()
ffibuilder.cdef("\n".join((HERE / name).read_text() for name in CDEFS))
ffibuilder.set_source(
    "dwcvmm._core",
    PREAMBLE,
    sources=SOURCES,
    include_dirs=["cbits"],
    depends=[*(f"cbits/{name}" for name in CDEFS), *(f"cbits/{path.relative_to(HERE)}" for path in HEADERS)],
    extra_compile_args=["-D_GNU_SOURCE", "-O3", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"],
)
