#!/bin/sh
# pytest-xdist 3.8.0 ignores xdist_group with pytest 9.2.0, without a word: `--dist loadgroup` gives tests of a group to
# different workers, each of which makes the group's fixtures anew. With pytest 9.1.1 they stay together.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3-venv.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
cat >test_group.py <<'PYTHON'
import os
import time
from pathlib import Path
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_member(number):
    time.sleep(0.2)
    Path(f"{os.environ['MADE']}-{os.getpid()}").touch()
PYTHON
python3 -m venv venv || exit 2
workers() { # VERSION: on how many workers the group ran
  venv/bin/pip install -q --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0 || exit 2
  MADE=$PWD/$1 venv/bin/pytest -q -n 3 --dist loadgroup test_group.py >"$1.log" || exit 2
  set -- "$1"-*
  echo $#
}
before=$(workers 9.1.1) || exit 2
now=$(workers 9.2.0) || exit 2
echo "pytest-xdist 3.8.0: a group ran on $before worker with pytest 9.1.1, on $now with 9.2.0"
[ "$before" = 1 ] || exit 2
[ "$now" -gt 1 ] && exit 0
exit 1
