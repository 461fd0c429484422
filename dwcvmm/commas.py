"""Texts of parts between commas. A comma within a part is written twice, as for QEMU."""

from __future__ import annotations


def split_at_commas(text: str) -> list[str]:
    """ "a,,b,c" -> ["a,b", "c"]"""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def double_commas(part: str) -> str:
    return part.replace(",", ",,")
