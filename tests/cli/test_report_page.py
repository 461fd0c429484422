"""`dwcvmm report` as people use it, and its page in a browser: light and dark, wide and narrow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_kvm
from matplotlib import image
from test_run import dwcvmm

from dwcvmm.errors import ExitCode

BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.xdist_group("report page")  # for its page of real results
needs_browser = pytest.mark.skipif(not BROWSER, reason="install the package chromium")
DARK, LIGHT = 0, 1  # Blink's PreferredColorScheme
INK_SPREAD = 0.08  # between the channels of a pixel of text; colours of data differ by more


@pytest.fixture(scope="module")
def page(guests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of real results: a bench, a check, elements, a run."""
    if not Path("/dev/kvm").exists():
        pytest.skip("this machine has no /dev/kvm")
    directory = tmp_path_factory.mktemp("page")
    boot, check, elements, run, out = (
        directory / name for name in ("boot.json", "check.json", "elements.json", "run.json", "page.html")
    )
    fpu = ("--kernel", guests / "fpu.bin", "--memory", "16M")
    for command in (
        ("bench", "boot", *fpu, "--rounds", "1", "--strategies", "off,sequential", "--json", boot),
        ("bench", "elements", "--pages", "0,5", "--rounds", "1", "--work-us", "50", "--json", elements),
        ("check", "--guest", "rep", "--elements", "50", "--strategy", "sequential", "--json", check),
        ("run", *fpu, "--strategy", "sequential", "--report", run),
        ("report", "--out", out, "--png", directory / "png", "--svg", directory / "svg", boot, check, elements, run),
    ):
        result = dwcvmm(*command)
        assert result.returncode == ExitCode.OK, result.stderr
    return out


def browse(page: Path, scratch: Path, *flags: str) -> tuple[str, list[str]]:
    """(stdout, lines of the console) of a headless browser without network."""
    command = [
        *(BROWSER or "", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"),
        *("--proxy-server=127.0.0.1:9", f"--user-data-dir={scratch / 'profile'}", *flags, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def shot(page: Path, scratch: Path, scheme: int, width: int = 800, height: int = 600) -> Any:
    """A screenshot: rows of pixels, channels 0 to 1."""
    file = scratch / f"{scheme}.png"
    browse(
        page, scratch, f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},{height}",
        f"--screenshot={file}",
    )  # fmt: skip
    return image.imread(file)[..., :3]


def luminance(pixels: Any) -> Any:
    """Relative luminance (WCAG 2.1)."""
    return (((pixels + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def legible_pixels(pixels: Any) -> int:
    """Grey pixels whose contrast with the paper, the pixel at the top left, is at least 7."""
    light, paper = luminance(pixels), luminance(pixels[0, 0])
    high, low = light.clip(min=paper), light.clip(max=paper)
    grey = pixels.max(axis=-1) - pixels.min(axis=-1) < INK_SPREAD
    return int((grey & ((high + 0.05) / (low + 0.05) >= 7)).sum())


@needs_kvm
def test_page_and_pictures_are_written(page: Path) -> None:
    names = {"boot-phases-1", "run-phases", "elements-1", "penalty-exits", "check-1"}
    assert {path.stem for path in (page.parent / "png").iterdir()} == names
    assert {path.stem for path in (page.parent / "svg").iterdir()} == names
    for name in names:
        assert image.imread(page.parent / "png" / f"{name}.png").min() < 0.5
    text = page.read_text()
    # figures say where they are from: host, command, date of each file
    assert text.count("Command: dwcvmm bench boot --kernel") >= 2
    assert "dwcvmm run --kernel" in text
    assert text.count("Host: ") >= 7
    assert "114" in text and "3,285" in text and "hosts differ" in text


@needs_kvm
@needs_browser
def test_a_browser_sees_the_tables_and_complains_of_nothing(page: Path, tmp_path: Path) -> None:
    dom, console = browse(page, tmp_path, "--dump-dom")
    assert console == []
    assert len(re.findall("<table", dom)) == 5
    assert len(re.findall("<svg", dom)) == 5
    for words in ('<th scope="row">sequential</th>', "us an element</text>", "fpu.bin"):
        assert words in dom
    # that it can complain: the page's own policy allows neither scripts nor requests
    planted = tmp_path / "planted.html"
    planted.write_text(page.read_text().replace("<main>", "<main><script>1</script><img src='planted.png'>"))
    _, console = browse(planted, tmp_path, "--dump-dom")
    assert len(console) >= 2


@needs_kvm
@needs_browser
def test_light_and_dark(page: Path, tmp_path: Path) -> None:
    light, dark = (shot(page, tmp_path, scheme) for scheme in (LIGHT, DARK))
    assert luminance(light[0, 0]) > 0.9
    assert luminance(dark[0, 0]) < 0.05
    assert legible_pixels(light) > 2000
    assert legible_pixels(dark) > 2000


@needs_kvm
@needs_browser
def test_pictures_are_legible_in_light_and_dark(page: Path, tmp_path: Path) -> None:
    """A picture alone, in the style of the page; the control is the same picture in the colours it was drawn with."""
    text = page.read_text()
    (style,) = re.findall(r"<style>.*?</style>", text, re.DOTALL)
    picture = re.findall(r'<svg[^>]*aria-label="Penalty and dirty pages.*?</svg>', text, re.DOTALL)[0]
    alone, control = tmp_path / "alone.html", tmp_path / "control.html"
    alone.write_text(f"<!doctype html>{style}<figure>{picture}</figure>")
    control.write_text(alone.read_text().replace("currentColor", "#1c1c1f"))
    found = {scheme: legible_pixels(shot(alone, tmp_path, scheme)) for scheme in (LIGHT, DARK)}
    assert min(found.values()) > 500
    assert legible_pixels(shot(control, tmp_path, LIGHT)) > 500
    assert legible_pixels(shot(control, tmp_path, DARK)) == 0


@needs_kvm
@needs_browser
def test_a_narrow_window_scrolls_tables_not_the_page(page: Path, tmp_path: Path) -> None:
    """Were the page wider than its window, text would reach its right edge: the margin there stays paper."""
    pixels = shot(page, tmp_path, LIGHT, width=400, height=2500)
    assert pixels.shape[1] == 400
    assert (abs(pixels[:, -12:] - pixels[0, 0]) < 0.01).all()
    assert legible_pixels(pixels) > 2000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), ExitCode.USAGE, "INPUT.json"),
        (("/no/such.json",), ExitCode.CONFIG, "/no/such.json"),
        (("pyproject.toml",), ExitCode.CONFIG, "pyproject.toml is no JSON"),
        (("--out", "/no/such/dir/r.html", "RUN"), ExitCode.CONFIG, "/no/such/dir/r.html"),
        (("--png", "/dev/null/dir", "RUN"), ExitCode.CONFIG, "/dev/null/dir"),
    ],
)
@needs_kvm
def test_bad_input(page: Path, tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, words: str) -> None:
    given = [str(page.parent / "run.json") if word == "RUN" else word for word in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "r.html")]
    result = dwcvmm("report", *out, *given)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr
