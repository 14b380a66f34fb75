#!/bin/sh
# What `make demo` shows: tools that nobody here wrote, inside the bundled machines.
set -eu
BIN=${BIN:-.venv/bin}
PATH=$(cd "$BIN" && pwd):$PATH

if ! fakedev doctor --json | grep -A1 '"run"' | grep -q true; then
    fakedev doctor
    echo "this host does not allow the sandbox that the demo needs; see the lines above" >&2
    exit 1
fi

show() {
    echo "\$ $*"
    "$@"
    echo
}

show fakedev run fd-9000 -- head -4 /proc/iomem
show fakedev run fd-9000 -- od -A x -t x4 -j 0xd8100000 -N 16 /dev/mem
PATH=$PATH:/usr/sbin:/sbin
if command -v dmidecode >/dev/null; then
    show fakedev run fd-9000 -- dmidecode -s system-product-name
else
    echo "(dmidecode is not installed: it would say FD-9000)"
fi
if busybox devmem 2>&1 | grep -q Usage; then
    show fakedev run fd-9000 -- busybox devmem 0xd8100004 32
    echo '$ fakedev run fd-9000 -- sh -c "busybox devmem 0xd8100020 32 0xcafef00d; busybox devmem 0xd8100020"'
    fakedev run fd-9000 -- sh -c 'busybox devmem 0xd8100020 32 0xcafef00d; busybox devmem 0xd8100020'
    echo
fi
if command -v lspci >/dev/null; then
    show fakedev run workstation -- lspci -s 01:
fi
echo '$ fakedev run pc-q35 -- sh -c "fakedev ctl modprobe e1000; fakedev ctl log"'
fakedev run pc-q35 -- sh -c 'fakedev ctl modprobe e1000; fakedev ctl log'
echo
echo '$ fakedev run pc-q35 -- dd if=/dev/mem bs=16 count=1 skip=65536    # System RAM, under STRICT_DEVMEM'
fakedev run pc-q35 -- dd if=/dev/mem bs=16 count=1 skip=65536 2>&1 | head -1 || true
echo
show fakedev explain pc-q35 0x100000 --op read

echo
echo "Try it yourself: . .venv/bin/activate; fakedev shell fd-9000"
