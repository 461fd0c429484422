"""Takes apart the texts that name modules: a file, and its arguments."""

from __future__ import annotations

import os
from pathlib import Path

QUOTES = "\"'"


def split_module(text: str, folder: Path = Path()) -> tuple[str, str]:
    """A module's file and its arguments. A name with blanks is quoted, as in GRUB. Without quotes the name is the
    longest part of the text, up to a blank, that names an existing file; if there is none, the first word. A relative
    name is looked for in `folder`.
    """
    if text[:1] and text[0] in QUOTES and (end := text.find(text[0], 1)) > 0:
        return text[1:end], text[end + 1 :].lstrip(" ")
    blanks = [at for at, letter in enumerate(text) if letter == " "]
    for at in (len(text), *reversed(blanks)):
        if at and os.path.exists(folder / text[:at]):  # noqa: PTH110 - Path.exists() raises for names that are too long
            return text[:at], text[at + 1 :]
    name, _, words = text.partition(" ")
    return name, words


def as_one_word(name: str) -> str:
    """A file's name as one word, with blanks written as in a URL: kernels skip the first word of their command line."""
    return name.replace(" ", "%20")
