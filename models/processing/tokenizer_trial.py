"""Tries the tokenizer of a folder in a child process first: a damaged one can end a process, or fill its memory.

The code of tokenizers is compiled: what it cannot allocate ends the process, and no exception is raised.
"""

import functools
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from merit_jax.models.io.folder_files import known_files

ROOM = 2**30
"""Bytes of memory for a tokenizer, and `PER_BYTE` more per byte of its file."""
PER_BYTE = 64
SECONDS = 30
"""Processor time to read a tokenizer and encode some texts, and one more per MiB; of the clock, `WAITING` times as many."""
WAITING = 20
WHOLE = "tokenizer.json"


def try_tokenizer(folder: Path) -> None:
    """Reads a folder's tokenizer in a child process; a tokenizer of the same content is tried once per process.

    Raises:
        ValueError: Reading it ends the process, or takes more memory or time than its size accounts for.
    """
    files = [file for file in known_files(folder) if not file.name.startswith("config")]
    whole = [file for file in files if file.name == WHOLE]
    subject, tried = (whole[0], whole) if whole else (folder, files)
    contents = [file.read_bytes() for file in tried]
    digest = hashlib.sha256(b"\0".join(contents)).hexdigest()
    if not sys.executable:  # of an embedded interpreter
        return
    if problem := _tried(digest, str(subject), sum(map(len, contents))):
        raise ValueError(f"{problem}; fetch the file again, and trust its source")


@functools.lru_cache(maxsize=64)
def _tried(digest: str, subject: str, size: int) -> str:
    """Returns the problem of a tokenizer; empty if there is none that a child process is needed to see."""
    seconds = SECONDS + size // 2**20
    child = Path(__file__).with_name("trial_child.py")
    command = [sys.executable, "-P", str(child), subject, str(ROOM + PER_BYTE * size), str(seconds)]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    name = Path(subject).name
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WAITING * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"reading {name} took more than {WAITING * seconds} s"
    said = done.stdout.decode(errors="replace").strip()
    if said:
        return f"{name} cannot be used: {said}"
    if done.returncode < 0:  # on Windows it never is
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return (
                f"reading {name} and encoding texts with it takes more than {seconds} s, or the memory of the machine"
            )
        why = ": it asks for more memory than its size accounts for" if b"memory allocation" in done.stderr else ""
        return f"reading {name} ends the process ({signal.Signals(-done.returncode).name}){why}"
    return ""
