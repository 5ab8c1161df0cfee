"""Imports work on Windows too, and wait for nothing that is not used yet."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

POSIX_ONLY = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "curses", "readline", "syslog")
"""Modules that Python has not on Windows."""

WITHOUT = {
    "os": "EX_DATAERR EX_IOERR EX_TEMPFAIL EX_USAGE O_CLOEXEC O_DIRECTORY O_NOFOLLOW WNOHANG fork forkpty getegid geteuid getgid "
    "getpgid getuid killpg mkfifo nice register_at_fork sched_getaffinity sched_setaffinity setsid sysconf uname wait4",
    "signal": "ITIMER_PROF ITIMER_REAL SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGUSR1 SIGUSR2 SIGXCPU SIGXFSZ "
    "pthread_sigmask setitimer",
}
"""Module -> names that it has not on Windows."""

EVERYTHING = f"""
import builtins, importlib, pkgutil, sys, types

ordinary = builtins.__import__

def poorer(name, without):
    found = types.ModuleType(name)
    vars(found).update({{key: value for key, value in vars(ordinary(name)).items() if key not in without.split()}})
    return found

STAND_INS = {{name: poorer(name, without) for name, without in {WITHOUT}.items()}}

def as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
    if str((globals or {{}}).get("__name__", "")).split(".")[0] == "merit_jax":
        if name.split(".")[0] in {POSIX_ONLY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        if name in STAND_INS:
            return STAND_INS[name]
    return ordinary(name, globals, locals, fromlist, level)

builtins.__import__ = as_on_windows
import merit_jax

count = 0
for part in ("", ".models", ".configs", ".launch", ".examples"):
    package = importlib.import_module("merit_jax" + part)
    for module in pkgutil.walk_packages(package.__path__[:1], package.__name__ + "."):
        importlib.import_module(module.name)
        count += 1
print(count)
"""
"""Imports every module as on Windows: only this package finds the modules and names missing, not its dependencies."""


MODELS = """
import importlib, pkgutil
from merit_jax import models
for module in pkgutil.walk_packages(models.__path__, "merit_jax.models."):
    importlib.import_module(module.name)
"""
"""Imports every module of models."""


def python(code: str) -> str:
    """What Python code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(statement: str) -> set[str]:
    """Names of the modules that are there after a statement."""
    return set(python(f"import sys\n{statement}\nprint(*sys.modules)").split())


def test_every_module_can_be_imported_without_what_windows_lacks():
    modules = sum(len(list((ROOT / part).rglob("*.py"))) for part in ("merit_jax", "models", "launch"))
    assert int(python(EVERYTHING)) > 0.9 * modules


@pytest.mark.parametrize(
    "statement", ["from merit_jax.models import load_pretrained, build", "import merit_jax.launch.run"]
)
def test_an_import_loads_neither_pytorch_nor_transformers(statement):
    assert importlib.util.find_spec("transformers") is not None
    assert not {"torch", "transformers"} & loaded(statement)


def test_models_load_no_part_of_the_method():
    parts = {name.split(".")[1] for name in loaded(MODELS) if name.startswith("merit_jax.")}
    assert parts == {"models"}
