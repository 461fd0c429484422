"""A machine in a file: its keys are those of `run`; what it prints is the same machine; what is wrong is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from dwcvmm.cli.machinefile import as_toml, read_machine
from dwcvmm.cli.machinekeys import PRINT, as_arguments, machine_options
from dwcvmm.cli.run import run
from dwcvmm.commas import double_commas
from dwcvmm.element.config import Strategy
from dwcvmm.errors import ConfigError
from dwcvmm.faults.model import parse
from dwcvmm.pc.devices.disk import parse_disk

OPTIONS = machine_options(run)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
SIZES = st.integers(0, 1 << 30).map(lambda n: f"{n}K")
TIMES = st.integers(2, 10).map(lambda n: f"{n}ms")
TEXTS: dict[str, st.SearchStrategy[str]] = {  # by the name of an option's type
    "size": SIZES,
    "duration": TIMES,
    "date": st.sampled_from(["host", "fixed", "utc=2026-11-29T08:00:00"]),
    "moment": st.sampled_from(["5000", "1.5s", "20ms"]),
    "fault": st.sampled_from(["1000:e2:rax:3", "120+end:e1:ram+0x400000:0,7"]),
    "disk": NAMES.map(lambda name: name.replace(",", ",,") + ",snapshot"),
    "module": NAMES,
    "network": st.sampled_from(["user,forward=tcp:127.0.0.1:8080:80", "tap=tap0"])
    | NAMES.map(lambda name: f"socket={double_commas(name)},mtu=1500"),
    "console": st.sampled_from(["stdio", "none"]) | NAMES,
    "serial": st.sampled_from(["none", "pty"]) | NAMES.map(lambda name: f"unix:{name}"),
    "gdb": st.just("127.0.0.1:1234") | NAMES.map(lambda name: f"unix:{name}"),
    "path": NAMES,
    "text": NAMES,
    "name": NAMES,
}


def values_of(option: click.Option) -> st.SearchStrategy[Any]:
    if option.is_flag:
        return st.booleans()
    if isinstance(option.type, click.IntRange):
        return st.integers(option.type.min, option.type.max)
    one = st.sampled_from(option.type.choices) if isinstance(option.type, click.Choice) else TEXTS[option.type.name]
    return st.lists(one, max_size=3) if option.multiple else one


MACHINES = st.fixed_dictionaries({}, optional={key: values_of(option) for key, option in OPTIONS.items()})


def parsed(arguments: Sequence[str]) -> click.Context:
    return run.make_context("run", list(arguments))


def machine(context: click.Context) -> dict[str, Any]:
    """The converted options, but for the date, which may be that of now."""
    return {name: value for name, value in context.params.items() if name not in ("date_ns", PRINT.replace("-", "_"))}


def test_every_option_has_a_key() -> None:
    shown = {name for option in run.params if isinstance(option, click.Option) for name in option.opts}
    assert {f"--{key}" for key in OPTIONS} == {name for name in shown if name.startswith("--")} - {f"--{PRINT}"}
    assert len(OPTIONS) > 25


@given(MACHINES)
def test_what_is_printed_is_the_same_machine(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    """From arguments, and from what is printed of them, kept in another folder."""
    context = parsed(as_arguments(OPTIONS, values))
    file = tmp_path_factory.mktemp("machine") / "vm.toml"
    file.write_text(as_toml(context), newline="")
    again = parsed([str(file)])
    assert as_toml(again) == file.read_bytes().decode()
    absolute = parsed(as_arguments(OPTIONS, read_machine(file, run)))
    assert machine(again) == machine(absolute)
    for name, value in machine(context).items():
        if name not in ("modules", "console", "serial", "disks", "nets", "gdb") and not isinstance(value, Path):
            assert again.params[name] == value, name
    assert [Path.cwd() / disk.path for disk in context.params["disks"]] == [d.path for d in again.params["disks"]]


def written(folder: Path, text: str) -> Path:
    (folder / "vm.toml").write_text(text)
    return folder / "vm.toml"


def test_files_are_relative_to_that_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "with blank").touch()
    lines = (
        'kernel = "k"',
        'initrd = "/boot/i"',
        'disk = ["a,,b.img,snapshot", "/c", "nbd+unix:///x?socket=/s,reconnect"]',
        """module = ["m x=1", "with blank y", '"q r" z', "/m"]""",
        'console = "log"',
        'serial = ["none", "unix:s", "/t"]',
    )
    values = parsed([str(written(tmp_path, "\n".join(lines)))]).params
    assert values["kernel"] == tmp_path / "k"
    assert values["initrd"] == Path("/boot/i")
    assert values["disks"] == (
        parse_disk(f"{tmp_path}/a,,b.img,snapshot"),
        parse_disk("/c"),
        parse_disk("nbd+unix:///x?socket=/s,reconnect"),
    )
    assert values["console"] == str(tmp_path / "log")
    assert values["serial"] == ("none", f"unix:{tmp_path}/s", "/t")
    quoted = (f'"{tmp_path}/m" x=1', f'"{tmp_path}/with blank" y', f'"{tmp_path}/q r" z', "/m")
    assert values["modules"] == quoted
    assert parsed([str(written(tmp_path, 'console = "none"'))]).params["console"] == "none"


def test_the_command_line_overrides_and_adds(tmp_path: Path) -> None:
    file = written(tmp_path, 'memory = "1G"\nstrategy = "off"\nfault = ["1:e1:rax:1"]\nrng = true\nquiet = false\n')
    values = parsed([str(file), "--memory", "2G", "--fault", "2:e2:rbx:2", "--quiet"]).params
    assert (values["memory"], values["strategy"], values["rng"], values["quiet"]) == (2 << 30, "off", True, True)
    assert values["faults"] == (parse("1:e1:rax:1"), parse("2:e2:rbx:2"))
    assert parsed(["--memory", "2G", str(file)]).params["memory"] == 2 << 30


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('kernal = "x"', "line 5: kernal: there is no such key: kernel?"),
        ("clock_divisor = 2", "line 5: clock_divisor: there is no such key: clock-divisor?"),
        ("[qqq]\nmemory = 1", "line 5: qqq: there is no such key. Keys are"),
        (f"{PRINT} = true", f"line 5: {PRINT}: there is no such key"),
        ('fault = [\n]\nmemry = "1G"', "line 7: memry: there is no such key: memory?"),
        ("clock-divisor = '3'", "line 5: clock-divisor: expected `integer`, got `string`"),
        ("clock-divisor = 0", "line 5: clock-divisor: expected `integer` >= 1"),
        ('disk = "x"', "line 5: disk: expected `array`, got `string`"),
        ("disk = [1]", "line 5: disk: expected `string`, got `integer`"),
        ("rng = 1", "line 5: rng: expected `boolean`, got `integer`"),
        ('strategy = "of"', "line 5: strategy: expected one of off, sequential, parallel, in-place"),
        ('memory = "lots"', "line 5: memory: 'lots' is no size"),
        ("memory = true", "line 5: memory: expected `integer | float | string`, got `boolean`"),
        ("timeout = nan", "line 5: timeout: 'nan' is no duration"),
        ('disk = ["a", "b,foo"]', "line 5: disk: 'foo': a disk can be"),
        ('fault = ["1:e3:rax:1"]', "line 5: fault: "),
        ("memory = [", "at end of document"),
        ("memory = " + "[" * 3000, "recursion"),
        ("memory = " + "9" * 5000, "4300 digits"),
        ("memory = 0x" + "f" * 5000, "line 5: memory: Exceeds the limit"),
        ('kernel = "a\\u0000b"', "line 5: kernel: "),
        ('module = ["a\\u0000b"]', "zero in it"),
        ("quiet = true\nquiet = true", "Cannot overwrite a value (at line 6"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed([str(written(tmp_path, f"# a machine\n\nappend = '''\nx'''\n{line}\n"))])
    assert words in str(caught.value)
    assert str(tmp_path / "vm.toml") in str(caught.value)


def test_a_kernel_is_no_machine(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\x7fELF\xff")
    with pytest.raises(ConfigError, match="a kernel is given by --kernel"):
        parsed([str(tmp_path / "k")])


def test_the_schema_and_the_manual_pages_are_those_of_the_options(tmp_path: Path) -> None:
    """Made in another process: click keeps what an option of `--help` was called at first."""
    docs = ROOT / "docs"
    subprocess.run([sys.executable, ROOT / "scripts" / "reference", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*")}
    kept = {path.relative_to(docs): path.read_text() for path in (*docs.glob("man/*"), docs / "machine.schema.json")}
    assert len(made) > 10
    wrong = [str(path) for path in made.keys() | kept.keys() if made.get(path) != kept.get(path)]
    assert not wrong, "out of date: run .venv/bin/python scripts/reference"


def test_the_schema_has_all_keys_and_no_other() -> None:
    schema = json.loads((ROOT / "docs" / "machine.schema.json").read_text())
    assert list(schema["properties"]) == list(OPTIONS)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["disk"]["type"] == "array"
    assert schema["properties"]["strategy"]["enum"] == sorted(Strategy)
