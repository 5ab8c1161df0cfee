"""The package as a user installs it: its wheel, in a fresh environment that has what it depends on."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

from tests.support import compiler

ROOT = Path(__file__).parents[2]


class Installed(NamedTuple):
    """A fresh environment.

    Attributes:
        packages: Its site-packages, which holds the wheel's content and nothing else that is imported.
        bin: Its commands.
        wheel: The file that it was installed from.
    """

    packages: Path
    bin: Path
    wheel: Path


def install(folder: Path) -> Installed:
    """Builds the wheel and installs it under a folder; its dependencies are those of this environment, the repository is not.

    A folder that a .pth file names is searched, but .pth files in it, such as that of an editable install, are not read.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--isolated"]
    built, fresh = folder / "built", folder / "fresh"
    _run([*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={built}", str(ROOT)])
    (wheel,) = built.iterdir()
    venv.create(fresh, symlinks=True)
    places = {name: Path(sysconfig.get_path(name, "venv", {"base": str(fresh)})) for name in ("purelib", "scripts")}
    ours = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (places["purelib"] / "dependencies.pth").write_text("\n".join(ours))
    _run([*pip, f"--python={fresh}", "install", "--no-deps", "--no-index", str(wheel)])
    return Installed(places["purelib"], places["scripts"], wheel)


def environment() -> dict[str, str]:
    """Variables of a process that finds nothing by them, and compiles as the tests do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    return kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": compiler.FAST, "HF_HUB_OFFLINE": "1"}


def ended(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Runs a command in a folder: (exit code, standard output, standard error)."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout, done.stderr


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
