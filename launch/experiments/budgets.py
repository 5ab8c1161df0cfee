"""Checks that methods are compared at the same training budget."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict


def copies(config: ConfigDict) -> int:
    """Returns the number of full runs in a method: K for a uniform soup of K, as in the paper; else 1.

    Examples:
        >>> copies(ConfigDict({"partition": {"method": "replicate", "groups": 4}}))
        4
    """
    return config.partition.groups if config.partition.method == "replicate" else 1


def budget(config: ConfigDict) -> float:
    """Returns the passes over the mixture, every branch's share of it counted.

    Examples:
        >>> budget(ConfigDict({"train": {"epochs": 2.0}, "partition": {"method": "replicate", "groups": 4}}))
        8.0
    """
    return config.train.epochs * copies(config)


def check_tokens(tokens: Mapping[str, float]) -> None:
    """Refuses methods whose branches together do not train on the same number of supervised tokens per run.

    `check_budgets` compares configs; this compares the partitions made from them.

    Args:
        tokens: Method -> supervised tokens of all its branches, divided by `copies`.

    Raises:
        ValueError: They differ; the methods are named with their tokens.
    """
    if len(set(tokens.values())) > 1:
        listed = ", ".join(f"{method} {count:,.10g}" for method, count in tokens.items())
        raise ValueError(
            f"the methods differ in budget, in supervised tokens: {listed}. Move those that are meant to differ to --controls"
        )


def check_budgets(configs: Mapping[str, ConfigDict], controls: Sequence[str] = ()) -> None:
    """Refuses to compare methods that train on different numbers of supervised tokens.

    All methods train on one mixture and drop nothing, so their supervised tokens are equal just when their passes over it
    are. A soup of K is K runs of the common budget.

    Args:
        configs: Method -> its config.
        controls: Methods that are meant to have another budget.

    Raises:
        ValueError: They differ; the methods are named by budget.
    """
    found = defaultdict(list)
    for method, config in configs.items():
        if method not in controls:
            found[config.train.epochs].append(method)
    if len(found) > 1:
        listed = "; ".join(f"{epochs:g} for {', '.join(methods)}" for epochs, methods in sorted(found.items()))
        raise ValueError(
            f"the methods differ in budget, in passes over the mixture: {listed}. Give them the same train.epochs, or move those "
            "that are meant to differ to --controls"
        )
