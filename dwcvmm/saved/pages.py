"""RAM as a stream: pages that are not zero, in stretches. Each stretch is its guest physical address and its length, 64
bits little-endian each, and its bytes; one of length 0 is the end. The stream is compressed by zstd (RFC 8878).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import zstandard

HEAD = struct.Struct("<QQ")
PAGE, MOST_PAGES = 4096, 256  # of a stretch
ZEROS = bytes(PAGE)
LEVEL = 1  # its speed is what a guest waits for


def stretches(pages: Iterable[int], read: Callable[[int, int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Pages in ascending order -> stretches of those that are not zero. `read(gpa, length)`."""
    run: list[int] = []
    for gpa in pages:
        if run and (gpa != run[-1] + PAGE or len(run) == MOST_PAGES):
            yield from _without_zeros(run[0], read(run[0], len(run) * PAGE))
            run = []
        run.append(gpa)
    if run:
        yield from _without_zeros(run[0], read(run[0], len(run) * PAGE))


def _without_zeros(gpa: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    begin = 0
    for at in range(0, len(data) + PAGE, PAGE):
        if at == len(data) or data.startswith(ZEROS, at):
            if at > begin:
                yield gpa + begin, data[begin:at]
            begin = at + PAGE


def encode(parts: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Piece by piece: an empty stretch is an empty piece."""
    for gpa, data in parts:
        yield HEAD.pack(gpa, len(data)) + data if data else b""
    yield HEAD.pack(0, 0)


def decode(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The stretches in an uncompressed stream. Raises ValueError if that is none, or is not whole."""
    while True:
        gpa, length = HEAD.unpack(_exactly(file, HEAD.size))
        if not length:
            break
        if length % PAGE or length > MOST_PAGES * PAGE or gpa % PAGE:
            raise ValueError(f"a stretch of {length} bytes at {gpa:#x}")
        yield gpa, _exactly(file, length)
    if file.read(1):
        raise ValueError("there is more behind its end")


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    while len(data) < length and (piece := file.read(length - len(data))):
        data += piece
    if len(data) != length:
        raise ValueError("it ends too early")
    return data


def ahead(parts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same stretches, each made on another thread while the caller uses the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, parts, None)
        while part := coming.result():
            coming = pool.submit(next, parts, None)
            yield part


def compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """As many pieces, and one more. Some are empty."""
    packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def unpacked(file: BinaryIO) -> BinaryIO:
    """The content of a compressed file. Reading raises ValueError if that is none."""
    return _Unpacked(file)  # type: ignore[return-value]


class _Unpacked:
    def __init__(self, file: BinaryIO) -> None:
        self._reader = zstandard.ZstdDecompressor().stream_reader(file)

    def read(self, length: int = -1) -> bytes:
        try:
            return self._reader.read(length)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
