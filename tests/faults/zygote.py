"""A process that has imported everything and forks a child for each command, so that a run costs no import.

Reads lines of JSON {"argv", "workdir", "fault", "log"}; answers each with the child's process id, then with its exit code.
"""

import importlib
import json
import os
import runpy
import shutil
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from tests.faults.inject import inject


def main() -> None:
    """Serves until its input ends."""
    warnings.simplefilter("ignore")
    importlib.import_module("launch.run")
    for line in sys.stdin:
        job = json.loads(line)
        output, told = os.pipe()
        child = os.fork()
        if not child:
            _run(job, told)
        os.close(told)
        _say(child)
        with open(output, "rb") as said, open(job["log"], "wb") as log:
            shutil.copyfileobj(said, log)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(job: Mapping[str, Any], told: int) -> None:
    """Becomes the command, which speaks into a pipe: a fault that strikes files does not strike what it says."""
    for descriptor in (1, 2):
        os.dup2(told, descriptor)
    os.close(told)
    inject(job["fault"], job["workdir"])
    sys.argv = ["run", *job["argv"]]
    try:
        runpy.run_module("launch.run", run_name="__main__")
    finally:
        sys.stdout.flush()


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
