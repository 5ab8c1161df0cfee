"""A streamed merge in a process of its own, for tests that measure it or kill it: `streaming.py RUN_DIR [KILL_AFTER]`.

Prints how much the process's peak memory grew, in MiB. With KILL_AFTER it kills itself once that many parameters are done.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from merit_jax.merging import MERGERS, OrbaxLeaves, merge_streamed


def peak() -> float:
    """Peak resident memory of this program in MiB. Unlike ru_maxrss, it leaves out that of the process that started it."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(run: Path, kill_after: int | None) -> None:
    """Merges `run`/0..3 with theta0 = `run`/theta0 into `run`/merged."""
    done = []

    def progress(path: str) -> None:
        done.append(path)
        if len(done) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    before = peak()
    branches = [OrbaxLeaves(run / str(k)) for k in range(4)]
    weights = [0.4, 0.3, 0.2, 0.1]
    merge_streamed(MERGERS["token_weighted"], OrbaxLeaves(run / "theta0"), branches, weights, run / "merged", progress)
    json.dump(peak() - before, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
