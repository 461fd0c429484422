"""Names for guest addresses, from the guest kernel's ELF file or its System.map."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from dwcvmm.errors import ConfigError
from dwcvmm.files import UnreadableError, read_file
from dwcvmm.pc.boot.elf import is_elf

MOST_BYTES = 2 << 30  # of a kernel with all of its debugging information
FARTHEST = 1 << 20  # bytes after a symbol of unknown size that still belong to it
NAMING = ("STT_FUNC", "STT_NOTYPE", "STT_OBJECT")
ABSOLUTE = "aA"  # types of nm(1) whose values are numbers, not addresses


@dataclass(frozen=True, order=True)
class Symbol:
    """`size`: in bytes; 0: unknown, the symbol reaches to the next one."""

    address: int
    size: int
    name: str


class Symbols:
    """Looks up addresses. Of several symbols at one address, the one with the largest size counts."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._symbols = sorted(symbols)
        self._addresses = [symbol.address for symbol in self._symbols]

    def find(self, address: int) -> tuple[Symbol, int] | None:
        """The symbol that an address belongs to, and the offset in it."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        symbol = self._symbols[index]
        offset = address - symbol.address
        return (symbol, offset) if offset < (symbol.size or FARTHEST) else None

    def name(self, address: int) -> str | None:
        """Text such as "do_idle+0x1c"."""
        found = self.find(address)
        return f"{found[0].name}+{found[1]:#x}" if found else None


def load_symbols(path: Path) -> Symbols:
    """Read an ELF file's symbol table, or a System.map. Raises ConfigError for another file, or without symbols."""
    try:
        content = read_file(path, MOST_BYTES, "no kernel's symbols are as large")
    except UnreadableError as error:
        raise ConfigError(f"symbols {error}") from error
    symbols = _of_elf(path, content) if is_elf(content) else _of_map(path, content)
    if not symbols:
        raise ConfigError(f"symbols {path}: there are none in it: a stripped file?")
    return Symbols(symbols)


def _of_elf(path: Path, content: bytes) -> list[Symbol]:
    try:
        elf = ELFFile(io.BytesIO(content))
        return [
            Symbol(int(each["st_value"]), int(each["st_size"]), each.name)
            for section in elf.iter_sections()
            if isinstance(section, SymbolTableSection)
            for each in section.iter_symbols()
            if each.name and each["st_info"]["type"] in NAMING and each["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS")
        ]
    except Exception as error:
        # on damaged files pyelftools raises whatever it comes across: its own, struct's, OverflowError, ...
        raise ConfigError(f"symbols {path}: truncated or damaged ELF file: {error}") from error


def _of_map(path: Path, content: bytes) -> list[Symbol]:
    """Lines as nm(1) writes them: address, type, name; a module's name may follow, as in /proc/kallsyms."""
    symbols: list[Symbol] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            address, kind, name = line.decode("ascii").split()[:3]
            value = int(address, 16)
        except ValueError as error:
            raise ConfigError(f"symbols {path}: neither an ELF file nor a System.map (line {number})") from error
        if len(kind) != 1:
            raise ConfigError(f"symbols {path}: neither an ELF file nor a System.map (line {number})")
        if kind not in ABSOLUTE:
            symbols.append(Symbol(value, 0, name))
    return symbols
