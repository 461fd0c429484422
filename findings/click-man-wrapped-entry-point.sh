#!/bin/sh
# click-man 0.6.0 writes the manual pages of another command, without an error, if a console script is a function that calls
# the group (to choose exit codes, say): it takes the first click command that the function's module has, by name.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3-venv.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
mkdir package
cat >package/pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "wrapped"
version = "1"
[project.scripts]
wrapped = "wrapped:main"
[tool.setuptools]
py-modules = ["wrapped"]
TOML
cat >package/wrapped.py <<'PYTHON'
import click

@click.group()
def cli(): "The program."

@cli.command()
def a(): "One of its commands."

def main(): cli()
PYTHON
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check click-man==0.6.0 ./package || exit 2
mkdir man
venv/bin/click-man --target man wrapped >said || exit 2
echo "click-man $(venv/bin/pip show click-man | sed -n 's/^Version: //p'): $(grep alternate said)"
grep -h -A1 '^.SH NAME' man/wrapped.1 || exit 2
grep -q 'The program' man/wrapped.1 && exit 1
grep -q 'One of its commands' man/wrapped.1 || exit 1
