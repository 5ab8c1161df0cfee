"""Parameters that stay theta0's in a merge."""

import logging
import re
from collections.abc import Iterable, Sequence

log = logging.getLogger("merit_jax")

ROUTERS = re.compile(r"(^|/)router/|\.(mlp|block_sparse_moe|feed_forward)\.(gate|router)\.")
"""Paths of the routers of mixtures of experts, ours and those of Hugging Face."""


def merged_paths(paths: Iterable[str], exclude: Sequence[str], models: int, key: str = "merge.exclude") -> list[str]:
    """Returns the parameters to merge, and warns of routers among them.

    Args:
        paths: Those that the models hold.
        exclude: Regular expressions over paths; where one is found, the parameter stays theta0's.
        models: Number of models that are merged.
        key: Name of `exclude` in messages.

    Raises:
        ValueError: A pattern is found in no path, or nothing is left.

    Examples:
        >>> merged_paths(["layers/mlp/router/kernel", "layers/mlp/up/kernel"], ["router"], 2)
        ['layers/mlp/up/kernel']
    """
    known = list(paths)
    for pattern in exclude:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{key}: {pattern!r} is no regular expression ({error})") from None
        if not any(re.search(pattern, path) for path in known):
            raise ValueError(
                f"{key}: {pattern!r} is found in no parameter that the models hold, such as {known[0]!r}; mend the pattern"
            )
    found = [path for path in known if not any(re.search(pattern, path) for pattern in exclude)]
    if not found:
        raise ValueError(f"{key} = {tuple(exclude)} leaves nothing to merge; leave some parameters out of it")
    routers = [path for path in found if ROUTERS.search(path)]
    if routers and models > 1:
        log.warning(
            "%d routers are averaged, %s among them: tokens can then go to experts that none of the models would send them to "
            "(arXiv:2606.03391). To keep theta0's, set %s to %r",
            len(routers),
            routers[0],
            key,
            "router" if "/" in routers[0] else r"\.(mlp|block_sparse_moe|feed_forward)\.(gate|router)\.",
        )
    return found
