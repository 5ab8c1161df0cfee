"""Counts the rooms of each package, the imports between them and the floors they stand on, from the source alone.

    python -m benchmarks.structure
    python -m benchmarks.structure --root=/path/to/another/checkout

A room is a direct child of a package: a module, or a sub-package with all that is in it. An arrow is a pair of rooms, one of
which imports the other, however often. A room's floor is one above the highest room that it imports; rooms that import one
another share a floor, and their arrows are the upward ones.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = ("merit_jax", "launch", "models")

BESIDE = ("models", "configs", "launch", "examples")
"""Parts of merit_jax that lie beside it in a checkout."""

Graph = Mapping[str, set[str]]
"""Room -> the rooms that it imports."""


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """Returns module name -> file of every module of a package."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Yields the known modules that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := in_checkout(alias.name)) in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = in_checkout(node.module)
            names = {in_checkout(f"{node.module}.{alias.name}") for alias in node.names}
            yield from (name if name in known else module for name in names if name in known or module in known)


def in_checkout(module: str) -> str:
    """Returns where a checkout has a module: `merit_jax.models` lies in `models`."""
    inner = module.removeprefix("merit_jax.")
    return inner if inner.split(".")[0] in BESIDE else module


def rooms(root: Path, package: str) -> Graph:
    """Returns the rooms of a package and what they import of one another."""
    known = modules_of(root, package)
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        if (room := room_of(module)) is not None:
            targets = {room_of(name) for name in imports(path, known)}
            graph.setdefault(room, set()).update(target for target in targets if target not in (None, room))
    return graph


def room_of(module: str) -> str | None:
    """Returns the second part of a module's name; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def reachable(graph: Graph, room: str) -> set[str]:
    """Returns all rooms that a room imports, directly or through others."""
    seen: set[str] = set()
    queue = [room]
    while queue:
        for target in graph.get(queue.pop(), ()):
            if target not in seen:
                seen.add(target)
                queue.append(target)
    return seen


def floors(graph: Graph) -> dict[str, int]:
    """Returns the floor of each room, from 1."""
    below = {room: reachable(graph, room) for room in graph}
    found: dict[str, int] = {}
    for room in sorted(graph, key=lambda room: len(below[room])):
        lower = [found[other] for other in below[room] if other in found and room not in below[other]]
        found[room] = 1 + max(lower, default=0)
    return found


def main() -> None:
    """Prints the table and every floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout to read")
    root = parser.parse_args().root
    print("| package | files | lines | rooms | floors | arrows | upward |\n|---|---:|---:|---:|---:|---:|---:|")
    graphs = {package: rooms(root, package) for package in PACKAGES}
    for package, graph in graphs.items():
        files = modules_of(root, package).values()
        lines = sum(len(path.read_text().splitlines()) for path in files)
        level = floors(graph)
        arrows = [(room, target) for room, targets in graph.items() for target in targets]
        upward = sum(level[room] <= level[target] for room, target in arrows)
        top = max(level.values(), default=0)
        print(f"| {package} | {len(files)} | {lines} | {len(graph)} | {top} | {len(arrows)} | {upward} |")
    for package, graph in graphs.items():
        level = floors(graph)
        print(f"\n{package}, from the top:")
        for floor in range(max(level.values(), default=0), 0, -1):
            print(f"  {floor}  {', '.join(sorted(room for room in graph if level[room] == floor))}")


if __name__ == "__main__":
    main()
