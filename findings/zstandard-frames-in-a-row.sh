#!/bin/sh
# Frames of zstd in a row are one content (RFC 8878, 3), as `cat a.zst b.zst` makes them and as zstd reads them. python-zstandard has two answers:
# decompress() and read_to_iter() end behind the first frame, without an error; copy_stream() and stream_reader() read all of them. So a check by
# decompress() calls a log of frames right whose second frame is anything. stream_reader() does so although its option read_across_frames is
# false by default: a read ends with a frame then, and the next read goes on. backports.zstd (compression.zstd of Python 3.14) reads all.
# Exit code 0: as described; 1: it has changed; 2: it could not be tried. Needs python3-venv, zstd.
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check zstandard==0.25.0 backports.zstd==1.0.0 || exit 2
printf one >a && printf two >b && zstd -q a b && cat a.zst b.zst >both.zst || exit 2
cat >run.py <<'PY'
import io
import zstandard
from backports import zstd

data = open("both.zst", "rb").read()
one = zstandard.ZstdDecompressor
copied, reader = io.BytesIO(), one().stream_reader(io.BytesIO(data))
one().copy_stream(io.BytesIO(data), copied)
iterated = b"".join(one().read_to_iter(io.BytesIO(data)))
parts = one().decompress(data), iterated, copied.getvalue(), reader.read(100), reader.read(100), zstd.decompress(data)
print(*(part.decode() for part in parts))
PY
seen="$(zstd -qdc both.zst) $(venv/bin/python run.py)"
echo "zstd; decompress, read_to_iter, copy_stream, two reads of stream_reader; backports.zstd: $seen"
[ "$seen" = "onetwo one one onetwo one two onetwo" ]
