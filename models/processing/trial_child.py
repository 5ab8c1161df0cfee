"""Reads the tokenizer of a folder in a process of its own, which may crash: `python trial_child.py PATH BYTES SECONDS`.

Run as a file, so that a tokenizer.json needs no import but that of tokenizers. Ordinary errors are left to the caller, which
will see them when it reads the folder itself.
"""

import sys
from pathlib import Path

TEXTS = (
    "The quick brown fox jumps over 13 lazy dogs.\n\n\tdef f(x):\n    return x**2  # ok\r\n" * 4,
    "naïve café — 日本語 한국어 🙂 \u202e e\u0301 \ufb01",
    "<|im_start|>user\n[INST] <s>[PAD]</s> <image>",
    *(piece * 1000 for piece in ("a", " ", "1", "\n", "é", "!", "a ", "'s")),
)
MOST = 2**16
"""Tokens that a text may have beyond `EACH` per byte: a tokenizer may pad."""
EACH = 16


def main() -> None:
    """Reads, encodes and decodes; prints nothing if all is well, else a reason."""
    path, room, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    encode = _reader(path)
    _limit(room, seconds)
    try:
        run = encode()
        for text in TEXTS:
            found = run(text)
            if found > MOST + EACH * len(text.encode()):
                sys.stdout.write(f"it makes {found} tokens of a text of {len(text)} characters")
                return
    except MemoryError:
        sys.stdout.write("it takes too much memory")
    except BaseException as error:
        sys.stderr.write(repr(error))


def _reader(path: Path):
    """Imports what reads the path; returns a function that reads it, and gives one from a text to its number of tokens."""
    if path.is_dir():
        from merit_jax.models.processing.local_folder import open_tokenizer

        def read_folder():
            tokenizer = open_tokenizer(path)
            return lambda text: len(tokenizer(text)["input_ids"])

        return read_folder
    from tokenizers import Tokenizer

    def read_file():
        tokenizer = Tokenizer.from_file(str(path))

        def count(text: str) -> int:
            found = tokenizer.encode(text).ids
            tokenizer.decode(found)
            return len(found)

        return count

    return read_file


def _limit(room: int, seconds: int) -> None:
    """Limits the memory from here on, and the processor's time, where the system can."""
    try:
        import resource
    except ImportError:
        return
    statm = Path("/proc/self/statm")
    here = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 2**31
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, most in ((resource.RLIMIT_AS, here + room), (resource.RLIMIT_CPU, seconds)):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            continue


if __name__ == "__main__":
    main()
