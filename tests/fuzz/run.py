"""run.py TARGET RUNS DIRECTORY: one target under atheris; its corpus and what made it crash stay in DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dwcvmm", "dissect"]):
    import targets
from seeds import SEEDS

name, runs, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
corpus = directory / name
corpus.mkdir(parents=True, exist_ok=True)
for number, seed in enumerate(SEEDS[name]):
    (corpus / f"seed{number}").write_bytes(seed)
# an input may take 1 s, and 200 MB beside the 70 of Python
arguments = ["fuzz", str(corpus), f"-runs={runs}", "-max_len=8192", "-timeout=1", "-rss_limit_mb=270"]
arguments += [f"-artifact_prefix={corpus}-crash-", "-print_final_stats=1"]
atheris.Setup(arguments, getattr(targets, name))
atheris.Fuzz()
