#!/bin/sh
# `import pyseccomp` starts two processes (`ldconfig -p`, once for the C library and once for libseccomp). So a program that
# confines itself has to import it before it gives up fork and exec.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3-venv, libseccomp2, ldconfig.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check pyseccomp==0.1.2 || exit 2
cat >started.py <<'PYTHON'
import sys
started = []
sys.addaudithook(lambda event, details: started.append(details[1]) if event == "subprocess.Popen" else None)
import pyseccomp
print(*(" ".join(command) for command in started), sep="\n")
sys.exit(10 if started else 0)
PYTHON
echo "pyseccomp $(venv/bin/pip show pyseccomp | sed -n 's/^Version: //p'), import starts:"
venv/bin/python started.py
code=$?
[ $code = 10 ] && exit 0
[ $code = 0 ] && { echo "nothing any more"; exit 1; }
exit 2
