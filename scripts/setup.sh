#!/bin/sh
# Find a Python that fits, then let install.py fill .venv with the requirement lists named as arguments.
# In sh, so that even a machine whose Python is too old gets an answer that it can use.
set -eu
cd "$(dirname "$0")/.."

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
candidates=${PYTHON:-python3 python3.13 python3.12 python3.11}

for python in $candidates; do
    if "$python" -c "$fits" >/dev/null 2>&1; then
        exec "$python" scripts/install.py "$@"
    fi
done

{
    echo "dreamq needs Python 3.11, 3.12 or 3.13 (TensorFlow 2.21 has no wheels for others). Found:"
    for python in $candidates; do
        echo "  $python: $("$python" --version 2>&1 | tail -n 1 || true)"
    done
    echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or say which one to use:"
    echo "  make demo PYTHON=/path/to/python3.13"
} >&2
exit 1
