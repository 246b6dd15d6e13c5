"""Runs checks on copies of `genbook`, one copy after the other, and prints what failed.

Argument: a JSON list of {"folder": where the copy is, "checks": pytest's names of tests}. The last
line printed is the JSON list of the checks that failed, one list for each copy. One process does
it all, because it takes Paddle longer to be imported than most checks take.
"""

import importlib
import json
import sys

import paddle  # noqa: F401  # once for all
import pytest


class Failures:
    """A pytest plugin: the tests whose own assertions failed, and those that ran."""

    def __init__(self):
        self.failed, self.ran = [], 0

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.ran += 1
            if report.failed:
                self.failed.append(report.nodeid)


def main(jobs):
    found = []
    for job in jobs:
        for name in [*sys.modules]:
            if name.split(".")[0] in ("genbook", "tests", "ranks_at_work"):
                del sys.modules[name]
        importlib.invalidate_caches()
        sys.path.insert(0, job["folder"])
        failures = Failures()
        code = pytest.main([*job["checks"], "-p", "no:cacheprovider"], plugins=[failures])
        sys.path.remove(job["folder"])
        if code not in (0, 1) or not failures.ran:
            raise SystemExit(f"pytest could not run {job['checks']}: code {code}")
        found.append(failures.failed)
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
