"""The Dockerfiles are in step with pyproject.toml and with each other, and follow the rules that hadolint checks."""

import difflib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.installed import ROOT

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(Word, rest) of each instruction of a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages(path: Path) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(path):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def of(path: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(path) if found == word]


def arguments(path: Path) -> dict[str, str]:
    return dict(rest.split("=", 1) for rest in of(path, "ARG"))


def copied(path: Path) -> list[str]:
    """The files and folders of the repository that go into the image."""
    return [source for rest in of(path, "COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]


def test_there_is_one_for_cpus_and_one_for_gpus():
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_ends_with_the_command_as_a_user_who_is_not_root(path):
    last = stages(path)[-1]
    assert [rest for word, rest in last if word == "USER"] == ["merit"]
    assert last.index(("USER", "merit")) > max(i for i, (word, _) in enumerate(last) if word in ("RUN", "COPY"))
    (entry,) = [json.loads(rest) for word, rest in last if word == "ENTRYPOINT"]
    assert entry == ["merit"]
    assert entry[0] in PROJECT["scripts"]
    assert "useradd" in next(rest for word, rest in last if word == "RUN")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_extra_exists(path):
    given = arguments(path)
    assert set(given["EXTRAS"].split(",")) <= EXTRAS.keys()
    (install,) = [rest for rest in of(path, "RUN") if "pip install" in rest]
    cuda = set(re.findall(r"cuda\d+", path.read_text())) if "CUDA" in given else set()
    assert cuda <= EXTRAS.keys()
    assert install.endswith('".[${CUDA},${EXTRAS}]"' if cuda else '".[${EXTRAS}]"')
    assert "-c constraints.txt" in install


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_python_is_one_that_the_project_takes(path):
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    for rest in of(path, "FROM"):
        version = re.fullmatch(r"python:(\d+)\.(\d+)-slim(?: AS \w+)?", rest)
        assert version, f"{rest}: an image needs a version"
        assert tuple(map(int, version.groups())) >= least


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rules_of_hadolint(path):
    assert "ADD" not in dict(instructions(path))  # DL3020
    assert all(rest.startswith("/") for rest in of(path, "WORKDIR"))  # DL3000
    assert all("--no-cache-dir" in rest for rest in of(path, "RUN") if "pip install" in rest)  # DL3042
    assert not [rest for rest in of(path, "RUN") if re.search(r"\b(sudo|apt|cd)\b", rest)]  # DL3004, DL3027, DL3003
    words = [word for word, _ in stages(path)[-1]]
    assert all(words.count(word) == 1 for word in ("ENTRYPOINT", "WORKDIR", "USER"))  # DL4004
    assert {word for word, _ in instructions(path)} <= {
        "FROM",
        "ARG",
        "WORKDIR",
        "RUN",
        "COPY",
        "ENV",
        "USER",
        "ENTRYPOINT",
    }


def test_they_differ_in_cuda_alone():
    cpu, cuda = ([line for line in path.read_text().splitlines() if not line.startswith("#")] for path in FILES)
    changed = [line for line in difflib.ndiff(cpu, cuda) if line[0] in "+-"]
    assert changed
    assert all("CUDA" in line or "NVIDIA" in line or "EXTRAS" in line for line in changed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_is_there_and_let_through(path):
    let = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")]
    assert sorted(copied(path)) == sorted(let)
    assert all((ROOT / name).exists() for name in let)


@pytest.mark.slow
def test_what_is_copied_makes_the_whole_wheel(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name in copied(FILES[0]):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--isolated", "wheel", "--no-deps"]
    contents = []
    for number, folder in enumerate((source, ROOT)):
        out = tmp_path / str(number)
        subprocess.run([*pip, "--no-index", "--no-build-isolation", f"--wheel-dir={out}", str(folder)], check=True)
        (wheel,) = out.iterdir()
        contents.append({name for name in zipfile.ZipFile(wheel).namelist() if "__pycache__" not in name})
    assert contents[0] == contents[1]
