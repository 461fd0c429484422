"""What pip installs: the wheel, made from the source distribution, in a clean virtual environment, used far from the
sources.
"""

from __future__ import annotations

import json
import re
import tarfile
import zipfile

import pexpect
import pytest
from conftest import ROOT, find_program, needs_kvm
from installation import Installed

from dwcvmm.errors import ExitCode

pytestmark = [pytest.mark.xdist_group("installed"), pytest.mark.timeout(600)]


def test_one_wheel_for_every_python_from_3_11_on(installed: Installed) -> None:
    """On every system with a C library at least as old as this one's."""
    assert re.fullmatch(r"dwcvmm-[\d.]+-cp311-abi3-manylinux_2_\d+_x86_64\.whl", installed.wheel.name)


def test_the_sources_are_complete(installed: Installed) -> None:
    """The wheel is made from them. What it needs not, but who builds it may want, is there as well."""
    with tarfile.open(installed.sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for name in ("guest-images/ports/ports.asm", "cbits/engine.c", "tests/conftest.py", "scripts/lib.sh", "LICENSE"):
        assert name in names
    assert not [name for name in names if name.endswith((".o", ".so", ".pyc", ".bin"))]
    with zipfile.ZipFile(installed.wheel) as wheel:
        packed = set(wheel.namelist())
    guests = {f"dwcvmm/experiments/guests/{path.stem}.bin" for path in (ROOT / "guest-images").glob("*/*.asm")}
    assert guests <= packed
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dwcvmm").rglob("*.py")}
    assert modules == {name for name in packed if name.endswith(".py")}


def test_doctor(installed: Installed) -> None:
    done = installed("dwcvmm", "doctor", "--json")
    assert json.loads(done.stdout)["fit"] is (done.returncode == ExitCode.OK)


@needs_kvm
def test_a_tiny_guest_runs(installed: Installed) -> None:
    done = installed("dwcvmm", "run", "--guest", "ports", "--fault", "3:e2:rbx:3")
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout == (ROOT / "guest-images" / "ports" / "token").read_text()
    assert "found in element 3, undone" in done.stderr
    unknown = installed("dwcvmm", "run", "--guest", "port")
    assert (unknown.returncode, unknown.stderr) == (ExitCode.CONFIG, "dwcvmm: there is no tiny guest 'port': ports?\n")


@needs_kvm
@pytest.mark.parametrize(
    "command",
    [
        "bench elements --rounds 1",
        "check --guest ports --elements 100",
        "campaign new c --guest ring3 --faults 2 --golden-runs 1",
    ],
)
def test_commands_find_their_guests(installed: Installed, command: str) -> None:
    done = installed("dwcvmm", *command.split())
    assert done.returncode == ExitCode.OK, done.stderr


@needs_kvm
def test_what_is_missing_is_said_before_the_work(installed: Installed) -> None:
    installed("dwcvmm", "campaign", "new", "early", "--guest", "ring3", "--faults", "2", "--golden-runs", "1")
    done = installed("dwcvmm", "campaign", "run", "early")
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == "dwcvmm: bounds need SciPy: pip install 'dwcvmm[report]'\n"


def test_what_needs_a_checkout_says_so(installed: Installed) -> None:
    done = installed("dwcvmm", "bench", "workload")
    assert done.returncode == ExitCode.CONFIG
    assert "in a checkout" in done.stderr


def test_manual_pages(installed: Installed) -> None:
    """man(1) finds them by the PATH alone, and troff has nothing to say about them."""
    find_program("man", "man-db")
    pages = sorted(path.stem for path in (ROOT / "docs" / "man").glob("*.1"))
    assert {"dwcvmm", "dwcvmm-run", "dwcvmm-bench-elements"} <= set(pages)
    for page in pages:
        done = installed("man", "--warnings", "-P", "cat", page, MANWIDTH="100")
        assert (done.returncode, done.stderr) == (0, ""), page
        assert re.search(rf"^NAME\n +{page} +- +\w", done.stdout, re.MULTILINE)
    assert installed("man", "-w", "dwcvmm-run").stdout == f"{installed.prefix}/share/man/man1/dwcvmm-run.1\n"
    shown = installed("man", "-P", "cat", "dwcvmm", "run", MANWIDTH="100").stdout  # as two words
    for words in ("--strategy [off|sequential|parallel|in-place]", "-q, --quiet", "stopped by divergences"):
        assert words in shown


def test_bash_completes(installed: Installed) -> None:
    environment = {"PATH": f"{installed.prefix}/bin:/usr/bin:/bin", "PS1": "ready> ", "TERM": "dumb"}
    bash = pexpect.spawn("bash", ["--norc"], env=environment, cwd=str(installed.folder), timeout=60, encoding="utf-8")
    bash.expect_exact("ready> ")
    bash.sendline("bind 'set enable-bracketed-paste off'; eval \"$(dwcvmm completion bash)\"; echo so\\it is")
    bash.expect_exact("soit is")
    bash.expect_exact("ready> ")
    bash.send("dwcvmm ru\t")
    bash.expect_exact("dwcvmm run ")
    bash.send("--strat\t")
    bash.expect_exact("--strategy ")
    bash.send("\t\t")
    for strategy in ("off", "sequential", "parallel", "in-place"):
        bash.expect_exact(strategy)
    bash.send("of\t--guest hid\t")
    bash.expect_exact("off --guest hidden ")
    (installed.folder / "some-disk.img").touch()
    bash.send("--disk some\t")
    bash.expect_exact("--disk some-disk.img ")
    bash.close(force=True)


def test_fish_completes(installed: Installed) -> None:
    find_program("fish", "fish")
    for words, completed in (("dwcvmm ru", "run"), ("dwcvmm run --strategy se", "sequential")):
        done = installed("fish", "-c", f"dwcvmm completion fish | source; complete -C {words!r}")
        assert done.stdout.split("\t")[0].strip() == completed, done.stderr


def test_zsh_reads_the_script(installed: Installed) -> None:
    find_program("zsh", "zsh")
    script = installed("dwcvmm", "completion", "zsh").stdout
    assert "#compdef dwcvmm" in script
    (installed.folder / "completion.zsh").write_text(script)
    done = installed("zsh", "-n", "completion.zsh")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = installed("zsh", "-fc", "autoload -U compinit; compinit -D; . ./completion.zsh; echo $_comps[dwcvmm]")
    assert loaded.stdout.strip() == "_dwcvmm_completion", loaded.stderr
