"""All benchmarks, one after the other, or those that are named: `python -m tests.benchmarks queue deepdream`.

Each prints ratios against a baseline that it measures in the same run; none judges.
"""

import subprocess
import sys
from pathlib import Path

_PARTS = {"__init__", "__main__", "bare", "stamp"}
"""Files here that are no benchmark of their own."""


def main() -> int:
    """Run each in a process of its own, so that none finds the other's networks warm."""
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _PARTS)
    chosen = sys.argv[1:] or known
    if unknown := set(chosen) - set(known):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    status = 0
    for name in chosen:
        print(f"== {name}", flush=True)
        status |= subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
