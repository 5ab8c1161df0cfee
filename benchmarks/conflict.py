"""The conflict stage's similarity matrix from disk against numpy's product in memory, and principal axes of many datasets.

    python -m benchmarks.conflict gram --root=runs/conflict-benchmark
    python -m benchmarks.conflict pca --root=runs/conflict-benchmark --plot=docs/images/pca_scaling.png

`gram`: --datasets rows of --entries float32, one .npy each as in a run's store. Ours reads and multiplies them; numpy has them
in memory as one matrix and computes `G @ G.T`. In turns, each in a process of its own, medians of --repeats. "cold" first
drops the files from the system's page cache. `pca`: unit rows around 32 centres, from 100 to --most datasets of --width
coordinates, by the path that the stage takes for so many. Peaks are above what the process holds once its imports are done.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMON = """
import json, os, sys, time
import numpy as np
import jax.numpy as jnp
from etils import epath
from benchmarks.processes import peak_bytes as peak
from merit_jax import conflict
from merit_jax.conflict import blocked_products
from merit_jax.gradients.store import StoredRow
jnp.zeros(1).block_until_ready()
def finish(seconds, before, **more):
    print(json.dumps({"seconds": seconds, "peak_bytes": peak() - before, **more}))
paths = sorted(epath.Path(sys.argv[1]).glob("*.npy"))
def drop():
    os.sync()
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
"""
MAKE = """
import sys
from pathlib import Path
import numpy as np
folder, datasets, entries = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
common = rng.standard_normal((3, entries), np.float32)
for i in range(datasets):
    row = rng.standard_normal(3).astype(np.float32) @ common + rng.standard_normal(entries, np.float32)
    np.save(folder / f"{i:06}.npy", row)
"""
OURS = """
norms = [float(np.linalg.norm(np.load(path))) for path in paths]
if sys.argv[2] == "cold":
    drop()
before, start = peak(), time.perf_counter()
C = conflict.cosines([StoredRow(path) for path in paths], norms=norms).values
finish(time.perf_counter() - start, before)
np.save(sys.argv[3], C)
"""
NUMPY = """
before = peak()
G = np.stack([np.load(path) for path in paths])
start = time.perf_counter()
K = G @ G.T
seconds = time.perf_counter() - start
norms = np.sqrt(np.diag(K))
found = np.load(sys.argv[3])
finish(seconds, before, difference=float(np.abs(K / np.outer(norms, norms) - found).max()))
"""
READ = """
if sys.argv[2] == "cold":
    drop()
before, start = peak(), time.perf_counter()
for block in blocked_products.blocks([StoredRow(path) for path in paths], np.ones(len(paths), np.float32)):
    pass
finish(time.perf_counter() - start, before)
"""
PCA = """
datasets, width, limit = map(int, sys.argv[2:5])
before = peak()
rng = np.random.default_rng(0)
centres = rng.standard_normal((32, width), np.float32) * (0.9 ** np.arange(32, dtype=np.float32))[:, None]
X = rng.standard_normal((datasets, width), np.float32)
X += centres[rng.integers(32, size=datasets)]
X /= np.sqrt(np.vecdot(X, X))[:, None]
start = time.perf_counter()
formed = conflict.forms_similarity(datasets, width, limit)
found = conflict.principal_axes(conflict.cosine_similarity(X), 3) if formed else conflict.axes_of_rows(X, 3)
found.scores.block_until_ready()
finish(time.perf_counter() - start, before, formed=formed, explained=found.explained.tolist())
"""
PAPER_ENTRIES = 0.6e9
"""Numbers that the paper keeps of each gradient."""


def child(code: str, *arguments: Any) -> dict[str, Any]:
    """What a piece of Python measures in a process of its own."""
    command = [sys.executable, "-c", COMMON + code, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Over the runs of one tool."""
    return statistics.median(run[key] for run in runs)


def gram(options: argparse.Namespace) -> dict[str, Any]:
    """Ours and numpy in turns, and the rates that both depend on."""
    folder, found = options.root / f"rows-{options.datasets}x{options.entries}", options.root / "similarity.npy"
    if not folder.exists():
        subprocess.run([sys.executable, "-c", MAKE, folder, *map(str, (options.datasets, options.entries))], check=True)
    pieces = {"ours": (OURS, "warm"), "cold": (OURS, "cold"), "numpy": (NUMPY, "")}
    pieces |= {"read": (READ, "warm"), "read cold": (READ, "cold")}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pieces}
    for _ in range(options.repeats):
        for name, (code, how) in pieces.items():
            runs[name].append(child(code, folder, how, found))
    describe(options, runs)
    return runs


def describe(options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the table, and what the rates say of the paper's size."""
    entries = options.datasets * options.entries
    peer = median(runs["numpy"], "seconds")
    print(f"\n{options.datasets} x {options.entries:,} float32, medians of {options.repeats}, {os.cpu_count()} CPUs\n")
    print("| | time | of numpy's | peak memory |\n|---|---|---|---|")
    for name, said in {
        "numpy": "`G @ G.T`, G in memory",
        "ours": "cosines from files, in the page cache",
        "cold": "cosines from files, on disk",
        "read": "reading alone, in the page cache",
        "read cold": "reading alone, on disk",
    }.items():
        seconds, peak = median(runs[name], "seconds"), median(runs[name], "peak_bytes")
        print(f"| {said} | {seconds:.2f} s | {seconds / peer:.2f} | {peak / 1e9:.2f} GB |")
    operations = options.datasets * (options.datasets + 1) * options.entries
    disk, ours = (4 * entries / median(runs[name], "seconds") for name in ("read cold", "cold"))
    grow = PAPER_ENTRIES / options.entries
    print(f"\nlargest difference of a cosine from numpy's: {max(run['difference'] for run in runs['numpy']):.1e}")
    print(
        f"disk {disk / 1e9:.2f} GB/s, BLAS {operations / peer / 1e9:.0f} GFLOP/s (a triangle), ours {ours / 1e9:.2f} GB/s"
    )
    print(
        f"{options.datasets} x {PAPER_ENTRIES:.1e}: {grow * median(runs['cold'], 'seconds') / 60:.1f} min at these rates "
        f"(reading {grow * 4 * entries / disk / 60:.1f}, products {grow * peer / 60:.1f}); paper: 28 min for 136"
    )


def pca(options: argparse.Namespace) -> dict[str, Any]:
    """Time and memory against the number of datasets."""
    import numpy as np

    counts = [count for count in (100, 300, 1000, 3000, 10_000, 30_000, 100_000) if count <= options.most]
    runs = {
        count: [child(PCA, options.root, count, options.width, options.limit) for _ in range(options.repeats)]
        for count in counts
    }
    print(f"\nwidth {options.width}, 3 axes, medians of {options.repeats}, {os.cpu_count()} CPUs\n")
    print("| datasets | C is formed | time | peak memory |\n|---|---|---|---|")
    for count, found in runs.items():
        formed = "yes" if found[0]["formed"] else "no"
        seconds, peak = median(found, "seconds"), median(found, "peak_bytes")
        print(f"| {count:,} | {formed} | {seconds:.2f} s | {peak / 1e9:.2f} GB |")
    seconds = [median(found, "seconds") for found in runs.values()]
    slopes = np.diff(np.log(seconds)) / np.diff(np.log(counts))
    between = zip(counts, counts[1:], slopes, strict=False)
    print("\nslope in log-log: " + ", ".join(f"{a:,} to {b:,}: {slope:.2f}" for a, b, slope in between))
    if options.plot:
        draw(counts, seconds, [median(found, "peak_bytes") / 1e9 for found in runs.values()], options)
    return {str(count): found for count, found in runs.items()}


def draw(counts: list[int], seconds: list[float], peaks: list[float], options: argparse.Namespace) -> None:
    """Draws time and memory, both axes logarithmic."""
    import altair as alt
    import numpy as np

    from merit_jax.reporting.figures import Axis, png, svg
    from merit_jax.reporting.series import Curve, Series, plot

    x, edge, panels = Axis("datasets (right of the line C is not formed)", log=True), (options.limit / 4) ** 0.5, []
    for values, label in ((seconds, "seconds"), (peaks, "peak memory (GB)")):
        line = Series(label, counts, values, size=3, line=True, listed=False)
        limit = Curve(np.array([[edge, min(values)], [edge, max(values)]]))
        panels.append(plot([line], x, Axis(label, log=True), curves=[limit], width=300, height=200))
    options.plot.write_bytes(png(svg(alt.hconcat(*panels))))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gram", "pca"))
    parser.add_argument("--root", type=Path, required=True, help="folder for rows and results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--datasets", type=int, default=136, help="of gram")
    parser.add_argument("--entries", type=int, default=4_000_000, help="of each gradient, for gram")
    parser.add_argument("--most", type=int, default=100_000, help="datasets of pca")
    parser.add_argument("--width", type=int, default=1024, help="of the sketch, for pca")
    parser.add_argument("--limit", type=int, default=2**28, help="conflict.similarity_bytes, for pca")
    parser.add_argument("--plot", type=Path, help="PNG of time and memory, for pca")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    results = {"gram": gram, "pca": pca}[options.what](options)
    (options.root / f"{options.what}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
