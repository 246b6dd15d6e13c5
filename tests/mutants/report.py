"""How many changes of the lessons a test noticed, and which none did.

    python tests/mutants/report.py [folder]

Reads what `mutmut run` left in the folder, `mutants` unless named. Fails where tests notice less
than LEAST of what was tried.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

LEAST = 0.95
NOTICED = ("killed", "timeout", "segfault", "caught by type check")
NOT_TRIED = ("not checked", "skipped", "check was interrupted by user")


def statuses(folder):
    """The status of each mutant, by its name."""
    codes = {}
    for file in sorted(Path(folder).rglob("*.meta")):
        codes |= json.loads(file.read_text("utf-8"))["exit_code_by_key"]
    return {name: status_by_exit_code[code] for name, code in codes.items()}


def main(folder="mutants"):
    """Print the counts and the mutants that no test noticed; return an exit code."""
    found = statuses(folder)
    tried = {name: status for name, status in found.items() if status not in NOT_TRIED}
    if not tried:
        print(f"no mutant was tried in {folder}: call mutmut run first", file=sys.stderr)
        return 1
    noticed = sum(status in NOTICED for status in tried.values())
    for name, status in tried.items():
        if status not in NOTICED:
            print(f"{status}: {name}")
    print(", ".join(f"{count} {status}" for status, count in Counter(found.values()).most_common()))
    print(f"a test notices {noticed / len(tried):.1%} of {len(tried)}; {LEAST:.0%} are wanted")
    return int(noticed < LEAST * len(tried))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
