"""Seeds folded per purpose and per name, so that adding a dataset changes no other dataset's sample."""

import hashlib


def fold(seed: int, *names: str) -> int:
    """Derives a seed from `seed` and names, such as a purpose and a dataset's name.

    The first 31 bits of sha256 over the length-prefixed parts: the same on every platform, and different for
    `("ab", "c")` and `("a", "bc")`.

    Args:
        seed: The run's seed, any integer.
        *names: Purpose of the seed, as "branch" and its number.

    Returns:
        An integer in [0, 2**31).

    Examples:
        >>> fold(0, "branch", "3"), fold(0, "branch", "4")
        (290966927, 1202423923)
    """
    digest = hashlib.sha256()
    for part in (str(seed), *names):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(digest.digest()[:4], "big") >> 1
