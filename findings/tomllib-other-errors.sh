#!/bin/sh
# tomllib documents TOMLDecodeError for a document that is no TOML. Of some it raises others: RecursionError for arrays
# within arrays, ValueError for an integer with more than 4300 digits. And it gives back hexadecimal integers that str() refuses.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs Python 3.11 or later.
set -u
python3 - <<'PYTHON'
import sys

try:
    import tomllib
except ImportError:
    sys.exit(2)
raised = []
for text in ("a = " + "[" * 3000, "a = " + "9" * 5000):
    try:
        tomllib.loads(text)
        raised.append(None)
    except Exception as error:
        raised.append(type(error))
number = tomllib.loads("a = 0x" + "f" * 5000)["a"]
try:
    str(number)
    printed = True
except ValueError:
    printed = False
print(f"Python {sys.version.split()[0]}: nested arrays: {raised[0]}, many digits: {raised[1]}, str() of many hexadecimal ones: {printed}")
sys.exit(0 if raised == [RecursionError, ValueError] and not printed else 1)
PYTHON
