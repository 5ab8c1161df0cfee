"""Starts commands: common flags, logging, several processes, and errors that a user can act on."""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict
from rich.logging import RichHandler

from merit_jax.core.errors import UnfinishedError
from merit_jax.core.processes import is_first_process
from merit_jax.launch.console import config_files, ending
from merit_jax.launch.console.exit_codes import CLOSED, INTERRUPTED, MISTAKE, UNFINISHED
from merit_jax.launch.console.terminal import Terminal, terminal

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "distributed",
    "",
    'Several processes as one run: "auto" on TPU pods, Slurm, Open MPI and indexed Kubernetes jobs, or '
    '"HOST:PORT,PROCESSES,INDEX" with the address of process 0; empty: one process.',
)
flags.DEFINE_string(
    "compilation_cache", "~/.cache/merit_jax/xla", "Folder of compiled programs, shared by all runs; empty: none."
)

RENAMED = {
    "gradients.vmap": "gradients.datasets_per_step",
    "gradients.vmap_bytes": "gradients.datasets_per_step_bytes",
}
"""Keys of version 0.1 -> their names now."""


def define_config() -> None:
    """Defines the flag `--config=FILE.py:ARG`, with `--config.KEY=VALUE` for any key of configs/common.py."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "A config file, or the name of a shipped one, and after a colon a method: quickstart:merit2d."
    )


def config() -> ConfigDict:
    """Returns the resolved config of `--config`.

    Raises:
        ValueError: The flag was not given, or a value is out of its key's range.
    """
    from merit_jax.configs.schema.check import check  # which loads JAX

    return check(given_config())


def given_config() -> ConfigDict:
    """Returns the config of `--config` before it is checked, for a command that has flags for some of its keys.

    Raises:
        ValueError: The flag was not given.
    """
    if FLAGS.config is None:
        raise ValueError("--config is missing; for example --config=quickstart, which is shipped, or --config=FILE.py")
    return FLAGS.config


def start(
    main: Callable[[Sequence[str]], int | None],
    define_flags: Callable[[], None],
    default_config: str | None = None,
    *,
    computes: bool = True,
) -> None:
    """Runs a command; what its user can mend, or has to wait for, is printed in a sentence and has an exit code of its own.

    Flags belong to the process, so a command defines its own only when it is run: its module can be imported next to any other.

    Args:
        main: The command.
        define_flags: Defines its flags.
        default_config: The config if none is given. (A flag's own default comes too late for `--config.KEY=VALUE`.)
        computes: Whether it uses accelerators; one that does not leaves them to the commands that it starts.
    """
    ending.open_standard_streams()
    define_flags()
    for name in {"config", "distributed", "compilation_cache"} & set(FLAGS):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])  # so that --help shows it, not only --helpfull
    if {"-h", "-help", "--help"} & set(sys.argv[1:]):
        print(f"{main.__globals__['__doc__']}\nflags:\n{FLAGS.main_module_help()}")
        sys.exit(0)
    if not computes:
        import jax

        jax.config.update("jax_platforms", "cpu")
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse(argv, default_config))


def refuse_arguments(argv: Sequence[str]) -> None:
    """Refuses words that are not flags."""
    if argv[1:]:
        raise ValueError(f"unexpected arguments {list(argv[1:])}; every option is a --flag; put a glob in quotes")


def _with_config(argv: Sequence[str], default: str | None) -> list[str]:
    """Returns the command line, with `--config` in it if it has a default, and its file found by its name."""
    given = any(re.match(r"--?config(=|$)", word) for word in argv)
    words = argv[1:] if given or default is None else [f"--config={default}", *argv[1:]]
    return [argv[0], *config_files.with_files(words)]


def _parse(argv: Sequence[str], default_config: str | None) -> list[str]:
    """Parses flags; a mistake in a config file or an override ends in one line, not a traceback."""
    try:
        return flags.FLAGS(_with_config(argv, default_config))
    except flags.Error as error:
        _fail(f"{_without_trace(error)}\nRun with --help for the flags.")
    except (AttributeError, KeyError) as error:
        renamed = [f"{old} is now {new}. " for old, new in RENAMED.items() if any(f"{old}=" in word for word in argv)]
        _fail(f"{_text(error)}\n{''.join(renamed)}The keys and their meanings are in configs/common.py.")
    except (ValueError, TypeError, OSError) as error:
        _fail(_text(error))
    raise AssertionError


def _without_trace(error: flags.Error) -> str:
    """Returns the message of a flag's error; of an error in a config file, which comes with a traceback, the last line."""
    flag, trace, _ = str(error).partition("Error whilst parsing config file:")
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return f"{flag}{_text(cause)}" if trace else str(error)


def _text(error: BaseException) -> str:
    """Returns an error's message; that of a KeyError without its quotes."""
    return str(error.args[0]) if error.args else repr(error)


def _guarded(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    try:
        with ending.second_interrupt_leaves():
            _set_up()
            refuse_arguments(argv)
            code = main(argv) or 0
            ending.flush(sys.stdout)
            return code
    except UnfinishedError as reason:
        _say(str(reason), "yellow")
        return UNFINISHED
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _say("interrupted; run the same command again to resume", "yellow")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and ending.reader_has_gone():
            ending.be_quiet()
            return CLOSED
        found = ending.verdict(error)
        if found is None:
            raise
        logging.getLogger("merit_jax").debug("traceback", exc_info=True)
        code, message = found
        _fail(message, code)
    raise AssertionError


def _fail(message: str, code: int = MISTAKE) -> None:
    _say(f"error: {message}", "red")
    sys.exit(code)


def _say(message: str, style: str) -> None:
    Terminal(stderr=True, soft_wrap=True, highlight=False).print(message, markup=False, style=style)


def _set_up() -> None:
    """Sets up distributed processes, compilation cache and logging."""
    _hush_orbax()
    if FLAGS.distributed:
        _join(FLAGS.distributed)
    if FLAGS.compilation_cache:
        _configure_jax("jax_compilation_cache_dir", os.path.expanduser(FLAGS.compilation_cache))
        _configure_jax("jax_persistent_cache_min_compile_time_secs", 1.0)
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    log = logging.getLogger("merit_jax")
    console = terminal(stderr=True)
    log.handlers, log.propagate = [RichHandler(console=console, show_path=False, show_level=False)], False
    log.setLevel(logging.INFO if is_first_process() else logging.WARNING)


def _configure_jax(name: str, value: str | float) -> None:
    """Sets a setting of JAX; where that is not loaded yet, in the environment, from which it takes them when it is."""
    if "jax" in sys.modules:
        sys.modules["jax"].config.update(name, value)
    else:
        os.environ[name.upper()] = str(value)


def _hush_orbax() -> None:
    """Drops the tracebacks of Orbax's threads and tasks: each of their failures is also raised in the main thread."""

    def thread_ended(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("orbax."):
            threading.__excepthook__(failure)

    def lost(failure: Any) -> None:
        if str(failure.exc_value) != "Event loop is closed":  # TensorStore answers a cancelled task
            sys.__unraisablehook__(failure)

    threading.excepthook, sys.unraisablehook = thread_ended, lost
    absl_logging.get_absl_logger().addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _join(where: str) -> None:
    """Joins the other processes of this run.

    Raises:
        ValueError: The environment does not name them.
    """
    import jax

    if where != "auto":
        address, processes, index = _explicit(where)
        jax.distributed.initialize(address, processes, index)
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            f"--distributed=auto: this is no TPU pod, Slurm step, Open MPI or indexed Kubernetes job that JAX knows ({error}); "
            "give --distributed=HOST:PORT,PROCESSES,INDEX"
        ) from None


def _explicit(text: str) -> tuple[str, int, int]:
    match text.split(","):
        case [address, processes, index] if processes.isdigit() and index.isdigit() and int(index) < int(processes):
            return address, int(processes), int(index)
    raise ValueError(f'--distributed={text}: expected "auto" or "HOST:PORT,PROCESSES,INDEX" with INDEX from 0')
