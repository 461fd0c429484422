"""Files that users name: pipes are read once, devices refused, slow readers waited for."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from dwcvmm.errors import BAD_NAME, ConfigError, ExitCode, HostError, as_error
from dwcvmm.files import UnreadableError, open_output, read_file
from dwcvmm.results.events import EventLog
from dwcvmm.results.outputfile import OutputFile
from dwcvmm.streams import write_all


def test_a_file_is_read_up_to_what_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    assert read_file(file, 5) == b"12345"
    with pytest.raises(UnreadableError, match=r"f: more than 4 bytes: the memory is smaller"):
        read_file(file, 4, "the memory is smaller")


def test_a_file_that_is_far_too_large_is_not_read_at_all(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(UnreadableError, match="more than"):
        read_file(file, 1 << 20)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe", os.urandom(3_000_000)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content))
    writer.start()
    assert read_file(pipe, len(content)) == content
    writer.join()


def test_an_endless_pipe_ends_at_what_is_wanted() -> None:
    read_end, write_end = os.pipe()

    def write() -> None:
        try:
            while True:
                os.write(write_end, bytes(65536))
        except BrokenPipeError:
            os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(UnreadableError, match="more than 1000000 bytes"):
        read_file(Path(f"/dev/fd/{read_end}"), 1_000_000)
    os.close(read_end)
    writer.join()


@pytest.mark.parametrize(
    ("name", "words"),
    [("/", "Is a directory"), ("/dev/zero", "a character device"), ("sock", "a socket"), ("none", "No such file")],
)
def test_what_is_no_file_is_refused_by_what_it_is(tmp_path: Path, name: str, words: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock"))
        with pytest.raises(UnreadableError, match=words):
            read_file(tmp_path / name, 100)


def test_a_name_with_a_zero_in_it_is_a_bad_name() -> None:
    with pytest.raises(UnreadableError, match="null"):
        read_file(Path("a\0b"), 100)
    with pytest.raises(ConfigError, match="null"):
        open_output(Path("a\0b"), "the report", 0)


def test_a_non_blocking_pipe_is_waited_for() -> None:
    """Its reader takes a little now and then; nothing is lost, and nothing raised."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    content, got = os.urandom(300_000), bytearray()

    def read() -> None:
        while data := os.read(read_end, 20_000):
            got.extend(data)
            time.sleep(0.005)

    reader = threading.Thread(target=read)
    reader.start()
    assert write_all(write_end, content)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert bytes(got) == content


@pytest.mark.parametrize("blocking", [True, False])
def test_nobody_waits_for_a_reader_once_it_is_over(blocking: bool) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    over = threading.Event()
    threading.Timer(0.2, over.set).start()
    assert not write_all(write_end, bytes(1 << 20), over.is_set)
    os.close(read_end)
    os.close(write_end)


def test_results_on_a_full_device_are_the_hosts_fault_and_a_bad_name_is_the_users(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(HostError, match="cannot write the report to /dev/full: No space left"):
        OutputFile(full).write(b"{}")
    with pytest.raises(HostError, match="cannot write events to /dev/full: No space left"):
        EventLog(full).write("start", 0)
    for path in (tmp_path, tmp_path / "none" / "r", tmp_path / "r" / "r"):
        (tmp_path / "r").touch()
        with pytest.raises(ConfigError, match="cannot write the report to"):
            OutputFile(path)


def test_a_result_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text("of an earlier run, longer")
    out = OutputFile(file)
    assert file.read_text() == "of an earlier run, longer"
    out.write(b"first one")
    out.write(b"second")
    assert file.read_text() == "second"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), ExitCode.HOST_UNFIT),
        (OSError(12, "Cannot allocate memory"), ExitCode.HOST_UNFIT),
        (FileNotFoundError(2, "No such file or directory", "f"), ExitCode.CONFIG),
        (MemoryError(), ExitCode.HOST_UNFIT),
        (ConfigError("no"), ExitCode.CONFIG),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), ExitCode.CONFIG),
        (AssertionError("never"), ExitCode.INTERNAL),
        (RecursionError("deep"), ExitCode.INTERNAL),
    ],
)
def test_exit_codes_of_exceptions(error: Exception, code: ExitCode) -> None:
    assert as_error(error).exit_code is code
    assert "\n" not in str(as_error(error))
    assert 2 in BAD_NAME and 28 not in BAD_NAME
