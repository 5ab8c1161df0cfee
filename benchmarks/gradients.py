"""Wall time and peak memory of the gradient stage against a bare `jax.value_and_grad` loop and a PyTorch transformers loop.

    python -m benchmarks.gradients --model=smollm2 --datasets=6 --examples=8 --root=runs/gradient-benchmark
    python -m benchmarks.gradients --model=quickstart --datasets=32 --examples=60 --root=runs/gradient-benchmark

All take the gradients of the same examples in the same padded batches, float32. The stage is the whole of it: it makes the
batches, places them, adds up, reduces and writes one file for each dataset. The bare loop finds its batches on the device and
keeps nothing. The PyTorch loop (SmolLM2 only; transformers is needed) adds up, keeps every fifth entry and writes one file for
each dataset. Each is a process of its own, which compiles and does its loop once before; then they take turns. Prints a table;
--root/MODEL.json has every run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKER = "benchmarks.gradient_loops"
PEERS = {"smollm2": ("stage", "bare", "transformers"), "quickstart": ("stage", "bare")}


class Loop:
    """A loop in a process of its own.

    Args:
        name: Of the loop.
        arguments: The worker's command line.
    """

    def __init__(self, name: str, arguments: list[str]):
        command = [sys.executable, "-m", WORKER, name, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.name = name
        if self._answer() != "ready":
            raise RuntimeError(f"{name} failed; run {' '.join(command)}")

    def __call__(self) -> float:
        """Seconds of one turn."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> int:
        """Ends the process; its largest resident memory in bytes."""
        self._process.stdin.close()
        peak = self._answer()
        self._process.wait()
        return int(peak or 0)

    def _answer(self) -> str:
        return self._process.stdout.readline().strip()


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """As many threads for all."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    yield
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def once(name: str, arguments: list[str]) -> str:
    """Standard output of a worker that does one thing."""
    command = [sys.executable, "-m", WORKER, name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all loops in turns."""
    config = {"gradients.examples": options.examples, **json.loads(options.config)}
    if options.mixture:
        config["mixture.path"] = options.mixture
    arguments = [
        f"--model={options.model}",
        f"--root={options.root}",
        f"--datasets={options.datasets}",
        f"--threads={options.threads}",
        f"--config={json.dumps(config)}",
    ]
    names = [name for name in PEERS[options.model] if name in options.loops]
    if "transformers" in names:
        once("prepare", arguments)
    loops = [Loop(name, arguments) for name in names]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for loop in loops:
            seconds[loop.name].append(loop())
            print(f"{loop.name}: {seconds[loop.name][-1]:.2f} s", file=sys.stderr, flush=True)
    peaks = {loop.name: loop.close() for loop in loops}
    found = {"seconds": seconds, "peak_bytes": peaks}
    (options.root / f"{options.model}.json").write_text(json.dumps(found, indent=2) + "\n")
    agreement = json.loads(once("compare", arguments)) if "transformers" in names else {}
    return {**found, "agreement": agreement}


def lines(options: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    """The table."""
    medians = {name: statistics.median(seconds) for name, seconds in found["seconds"].items()}
    yield (
        f"{options.model}: {options.datasets} datasets of {options.examples} examples, medians of {options.repeats}, "
        f"threads: {options.threads}\n"
    )
    yield "| loop | time | stage / loop | peak memory |\n|---|---|---|---|"
    for name, median in medians.items():
        ratio = medians["stage"] / median
        yield f"| {name} | {median:.2f} s | {ratio:.3f} | {found['peak_bytes'][name] / 1e9:.2f} GB |"
    if found["agreement"]:
        yield "\nStage and PyTorch: cosine at least {cosine:.7f}, norms differ by {norm:.1e} at most.".format(
            **found["agreement"]
        )


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", choices=list(PEERS))
    parser.add_argument("--datasets", type=int, default=6)
    parser.add_argument("--examples", type=int, default=8, help="of each dataset; smaller datasets are left out")
    parser.add_argument("--root", type=Path, required=True, help="folder for what the loops read and write")
    parser.add_argument("--loops", nargs="+", default=list(PEERS["smollm2"]), choices=list(PEERS["smollm2"]))
    parser.add_argument("--mixture", default="", help="manifest in place of the config's")
    parser.add_argument(
        "--config", default="{}", help='more keys of the config, as JSON: {"gradients.datasets_per_step": 4}'
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    with environment(options.threads):
        found = measure(options)
    for line in lines(options, found):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
