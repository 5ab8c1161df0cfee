"""Commands in processes of their own that cost no import: a server has imported everything and forks them.

It serves one process, over a socket, until that ends. A request for a start comes with the ends of pipes for what the command
says; pipes, since a fault that strikes files must not strike them.
"""

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, Timer
from typing import Any

REPOSITORY = Path(__file__).parents[2]
WITHOUT_TORCH = f"{REPOSITORY}/tests/support/without_torch:{REPOSITORY}"
"""For PYTHONPATH."""
LONGEST = 1 << 20
"""Bytes of a message."""

ONE_AT_A_TIME = Lock()
"""Held from a request to its answer."""


class Command:
    """A command that the server has started; its methods are those of `subprocess.Popen`.

    Args:
        code: Python.
        argv: Its `sys.argv`.
        folder: Where it runs.
        changes: Its variables that are other than this process's.
        imports: A module that the server imports before, once for all.
        apart: Whether standard output and standard error are told apart.
    """

    def __init__(
        self,
        code: str,
        argv: Sequence[str],
        folder: Path,
        changes: Mapping[str, str],
        *,
        imports: str = "merit_jax.launch.run",
        apart: bool = False,
    ) -> None:
        pipes = [os.pipe() for _ in range(2 if apart else 1)]
        self._outputs = [os.fdopen(output, "rb") for output, _ in pipes]
        request = {"imports": imports, "code": code, "argv": list(argv), "folder": str(folder)}
        request |= {"environment": {**os.environ, **changes}}
        self.returncode: int | None = None
        self.pid: int = _ask(request, [told for _, told in pipes])
        for _, told in pipes:
            os.close(told)

    def poll(self) -> int | None:
        """Its exit code, if it has ended; minus the signal's number if a signal ended it."""
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 600.0) -> list[str]:
        """All that it says: [standard output, standard error], or [both, ""]; it is killed when the time is over."""
        killer = Timer(timeout, self.kill)
        killer.start()
        with ThreadPoolExecutor(len(self._outputs)) as pool:
            texts = list(pool.map(_rest, self._outputs))
        self.wait()
        killer.cancel()
        return texts if len(texts) == 2 else [*texts, ""]

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Closes what it would have said."""
        for output in self._outputs:
            output.close()


def _rest(output: Any) -> str:
    with output:
        return output.read().decode(errors="replace")


@functools.cache
def _server() -> socket.socket:
    """The socket to this process's server, which is started at first use."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.zygote", str(there.fileno())],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": WITHOUT_TORCH},
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
    )
    there.close()
    atexit.register(process.wait, 60)
    atexit.register(here.close)
    return here


def _ask(request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Any:
    with ONE_AT_A_TIME:
        server = _server()
        socket.send_fds(server, [json.dumps(request).encode()], list(descriptors))
        return json.loads(server.recv(LONGEST))


def main(descriptor: int) -> None:
    """Serves until the other end is closed."""
    warnings.simplefilter("ignore")  # JAX warns of every fork; no thread of XLA's runs before
    client = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, *_ = socket.recv_fds(client, LONGEST, 2)
        if not message:
            return
        request = json.loads(message)
        if "poll" in request:
            answer = _exit_code(request["poll"])
        else:
            importlib.import_module(request["imports"])
            answer = os.fork()
            if not answer:
                client.close()
                return _become(request, descriptors)
            for told in descriptors:
                os.close(told)
        client.send(json.dumps(answer).encode())


def _exit_code(child: int) -> int | None:
    ended, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """The command, in the child."""
    for standard, told in ((1, descriptors[0]), (2, descriptors[-1])):
        os.dup2(told, standard)
    for told in descriptors:
        os.close(told)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]
    try:
        exec(compile(request["code"], "<command>", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
