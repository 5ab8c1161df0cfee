"""Renders chat templates from elsewhere within limits.

Their constants are checked before they are compiled; they are tried in a child process; and every rendering is watched.
"""

import contextlib
import ctypes
import functools
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes

from merit_jax.data.template_trial import harm

try:
    import resource
except ImportError:  # Windows: renderings are watched by their time alone
    resource = None  # type: ignore[assignment]

LARGEST = 10**6
"""Largest whole number in a template, and largest product of constants."""
WIDTH = re.compile(r"%[-+ #0]*\d{7,}|\{\w*:[^\s{}\"']{0,3}\d{7,}")
"""A text that formats a value to millions of characters."""
SECONDS = 5.0
"""Wall time of one rendering, and as much again for each image."""
GROWTH = 2**28
"""Bytes by which the process may grow beyond its largest size until now."""
OVERRUN = "does not come to an end, or fills the memory"
_LOOKED_AT = (nodes.Pow, nodes.Mul, nodes.Const, nodes.Filter, nodes.Name)
POLL = 0.02
"""Seconds between two checks of the limits."""


class OverrunError(BaseException):
    """An excess of time or memory; no code that is stopped by it catches it as one of its own errors."""


@functools.lru_cache(maxsize=16)
def check_template(source: str) -> None:
    """Checks the constants of a template, which its compilation would compute, and tries it in a child process.

    What depends on the conversation otherwise than by its length and roles is left to `bounded`.

    Raises:
        ValueError: It is no Jinja template, has a power, a large number, a large product or a random choice in it, does not come
            to an end, or fills the memory.
    """
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
        reason = next(filter(None, map(_objection, tree.find_all(_LOOKED_AT))), None)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template is damaged at line {error.lineno} ({error.message}); mend it") from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"the chat template cannot be parsed ({type(error).__name__}: {error}); mend it") from None
    if reason:
        raise ValueError(f"the chat template has {reason}, which no conversation needs; mend it")
    if harm(source):
        raise ValueError(f"the chat template {OVERRUN}; mend it")


def render(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], where: str, *, source: str, images: int, **options: Any
) -> str:
    """Checks a template and renders it in transformers' sandbox, within `SECONDS` and `GROWTH`.

    Args:
        tokenizer: A `chat_template.Tokenizer`.
        messages: The conversation.
        where: Name of the record in error messages.
        source: The template, without `{% generation %}` tags.
        images: The number of images, which take time to read.
        **options: Those of `tokenizer.apply_chat_template`.

    Raises:
        ValueError: The template is refused by `check_template`, fails, does not end, or writes characters that are no text.
    """
    try:
        check_template(source)
        with bounded(SECONDS * (1 + images)):
            text = tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False, **options)
            text.encode()
            return text
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: the chat template writes what is no text ({error}); mend it") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except OverrunError:
        raise ValueError(f"{where}: the chat template {OVERRUN}; mend it") from None
    except Exception as error:  # a template can divide by zero, index a number, recurse, ...
        raise ValueError(f"{where}: the chat template fails on this conversation: {error}") from error


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, growth: int = GROWTH) -> Iterator[None]:
    """Stops the code inside when it takes too much time or memory.

    Args:
        seconds: Wall time.
        growth: Bytes by which the process may grow beyond its largest size until now.

    Raises:
        OverrunError: It did.
    """
    guard = _Guard(seconds, growth)
    _watchdog.add(guard)
    try:
        yield
    finally:
        _watchdog.remove(guard)


class _Guard:
    """The limits of one piece of code in one thread."""

    def __init__(self, seconds: float, growth: int):
        self.thread, self.fired = threading.get_ident(), False
        self.until, self.most = time.monotonic() + seconds, _peak_bytes() + growth

    def is_exceeded(self) -> bool:
        return time.monotonic() > self.until or _peak_bytes() > self.most

    def fire(self) -> None:
        """Makes the thread raise `OverrunError` at its next bytecode; a call into C is not interrupted."""
        self.fired = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(OverrunError))

    def withdraw(self) -> None:
        """Removes an `OverrunError` that the thread has not raised yet."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)


class _Watchdog:
    """The guards of a process, and the thread that checks them while there are any."""

    def __init__(self) -> None:
        self.changed, self.guards = threading.Condition(), set[_Guard]()
        self.thread: threading.Thread | None = None

    def add(self, guard: _Guard) -> None:
        with self.changed:
            self.guards.add(guard)
            if self.thread is None:
                self.thread = threading.Thread(target=self._check, name="deadlines", daemon=True)
                self.thread.start()
            self.changed.notify()

    def remove(self, guard: _Guard) -> None:
        with self.changed:
            self.guards.discard(guard)
            if guard.fired:
                guard.withdraw()

    def _check(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.guards))
                for guard in [guard for guard in self.guards if guard.is_exceeded()]:
                    self.guards.discard(guard)
                    guard.fire()
            time.sleep(POLL)


_watchdog = _Watchdog()


def _start_anew() -> None:
    """Replaces the watchdog in a forked process, where its thread is gone and its lock may be held for ever."""
    global _watchdog
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):  # nothing forks on Windows
    os.register_at_fork(after_in_child=_start_anew)


def _peak_bytes() -> int:
    """Largest resident memory of the process until now; 0 where the system does not tell."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _objection(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Filter | nodes.Name):
        return f"a random choice at line {node.lineno}" if node.name in ("random", "lipsum") else None
    if isinstance(node, nodes.Pow):
        return f"a power at line {node.lineno}"
    if isinstance(node, nodes.Mul):
        return f"a product of more than {LARGEST} at line {node.lineno}" if _size(node) > LARGEST else None
    value = node.value if isinstance(node, nodes.Const) else None
    large = (isinstance(value, int) and abs(value) > LARGEST) or (isinstance(value, str) and WIDTH.search(value))
    return f"a number above {LARGEST} at line {node.lineno}" if large else None


def _size(node: nodes.Node) -> int:
    """At least the length, or the size, of a product of constants; 1 for other nodes."""
    if isinstance(node, nodes.Const):
        value = node.value
        return max(1, len(value) if isinstance(value, str) else abs(value) if isinstance(value, int) else 1)
    return math.prod(map(_size, node.iter_child_nodes()))
