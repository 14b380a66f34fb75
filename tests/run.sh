#!/bin/sh
# Runs the tests. A fresh machine may have /dev/fuse closed to everyone but root; udev opens it elsewhere.
set -eu
bin=$1
if [ "$(id -u)" = 0 ] && [ -c /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    chmod 0666 /dev/fuse || echo "note: /dev/fuse could not be opened to other users" >&2
fi
# One process for each core; the tests of a file stay together. One that dies (a test beyond its time) ends the run.
exec "$bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
