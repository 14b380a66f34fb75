#!/bin/sh
# Makes the virtual environment; as root on Debian or Ubuntu also installs the packages of apt-packages.txt.
set -eu
python=$1 venv=$2
packages=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' apt-packages.txt)
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    missing=
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        echo "installing system packages:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
    echo "python3 -m venv failed: install the package python3-venv, then run this again" >&2
    exit 1
}
"$venv/bin/python" -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e '.[fusepy]' --group test --group lint
