"""How many changes of the lessons and metrics a test noticed, and which none did.

    python tests/mutants/report.py

Reads what `mutmut run` left in the folder `mutants`. Fails where tests notice less than LEAST of
what was tried, and where a change that none noticed is not in `survivors.txt`. That file gives
reasons, in lines that begin with #; below a reason are the changes that it lets be, each with its
function and its lines as `mutmut show` tells them. Blank lines part all of these.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

LEAST = 0.95
NOTICED = ("killed", "timeout", "segfault", "caught by type check")
NOT_TRIED = ("not checked", "skipped", "check was interrupted by user")
EXPLAINED = Path(__file__).with_name("survivors.txt")


def statuses():
    """For each file that was changed, the status of each of its mutants by name."""
    for meta in sorted(Path("mutants").rglob("*.meta")):
        codes = json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
        file = meta.relative_to("mutants").with_suffix("").as_posix()
        yield file, {name: status_by_exit_code[code] for name, code in codes.items()}


def change(name, file):
    """What a mutant is, whatever its number: its function and the lines removed and added."""
    function = name.rpartition("__mutmut_")[0].replace(".x_", ".").replace(".xǁ", ".")
    diff = get_diff_for_mutant(name, path=file).splitlines()[2:]
    changed = [f"{line[0]} {line[1:].strip()}" for line in diff if line[0] in "+-"]
    return "\n".join([function.replace("ǁ", "."), *changed])


def main():
    """Print the share of each file and what is not explained; return an exit code."""
    explained = EXPLAINED.read_text("utf-8").rstrip("\n").split("\n\n")
    count, missed, unexplained = Counter(), 0, 0
    for file, found in statuses():
        count.update(found.values())
        tried = {name: status for name, status in found.items() if status not in NOT_TRIED}
        survivors = [name for name, status in tried.items() if status not in NOTICED]
        missed += len(survivors)
        for name in survivors:
            if change(name, file) not in explained:
                unexplained += 1
                print(f"{tried[name]}, not explained: {name}\n{change(name, file)}\n")
        print(f"{file}: {len(tried) - len(survivors)} of {len(tried)}")
    tried = sum(count.values()) - sum(count[status] for status in NOT_TRIED)
    if not tried:
        print("no mutant was tried: call mutmut run first", file=sys.stderr)
        return 1
    print(", ".join(f"{number} {status}" for status, number in count.most_common()))
    share = 1 - missed / tried
    print(f"a test notices {share:.1%} of {tried}; {LEAST:.0%} are wanted, the rest explained")
    return int(share < LEAST or unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
