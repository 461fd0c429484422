"""run.py TARGET RUNS DIRECTORY: one target under atheris; its corpus and what made it crash stay in DIRECTORY."""

from __future__ import annotations

import gc
import itertools
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dwcvmm", "dissect"]):
    import targets
from seeds import SEEDS

COLLECT_EVERY = 256  # inputs

name, runs, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
corpus = directory / name
corpus.mkdir(parents=True, exist_ok=True)
for number, seed in enumerate(SEEDS[name]):
    (corpus / f"seed{number}").write_bytes(seed)
# an input may take 1 s, and 200 MB beside the 70 of Python
arguments = ["fuzz", str(corpus), f"-runs={runs}", "-max_len=8192", "-timeout=1", "-rss_limit_mb=270"]
arguments += [f"-artifact_prefix={corpus}-crash-", "-print_final_stats=1"]
target, inputs = getattr(targets, name), itertools.count(1)


def one(data: bytes) -> None:
    """Devices refer to each other and have buffers in C: what they leave would hide what an input takes."""
    target(data)
    if not next(inputs) % COLLECT_EVERY:
        gc.collect()


atheris.Setup(arguments, one)
atheris.Fuzz()
