"""Keys of the removal of attention heads, with their meanings, units, defaults and ranges."""

from ml_collections import ConfigDict

from merit_jax.configs.schema.keys import Key
from merit_jax.core.ranges import each, number, one_of, whole
from merit_jax.pruning import CRITERIA, SPREADS, UNITS

PARTS = ("decoder", "vision")


def declare_pruning(c: ConfigDict) -> None:
    """Adds the section `prune` to the declared keys."""
    # attention heads that are removed from the merged model
    c.prune = ConfigDict()
    # share of the heads that is removed; 0: the merged model is not pruned
    c.prune.ratio = Key(0.0, number(least=0, below=1))
    # order: "hies" (HIES), "importance" (HIS), "entropy" (AE), "magnitude" of the weights, "random"; the lowest go
    c.prune.criterion = Key("hies", one_of(CRITERIA))
    # weight of importance in "hies", against entropy; of several, that of the best score on the suites' choosing half
    c.prune.alpha = Key((0.75,), each(number(least=0, most=1), least=1, rising=True))
    # what is removed at once: a query "head", or a "group" of them with the key and value head that they share
    c.prune.unit = Key("head", one_of(UNITS))
    # "layer": as many from every layer, which a smaller model can have; "model": the lowest of all layers (paper)
    c.prune.spread = Key("layer", one_of(SPREADS))
    # heads or groups that every layer keeps at least
    c.prune.keep = Key(1, whole(1))
    # parts of the model whose heads are scored and removed: "decoder", "vision"
    c.prune.parts = Key(("decoder",), each(one_of(PARTS), least=1))
    # times that heads are scored and a part of them is removed
    c.prune.rounds = Key(1, whole(1))
    # share of every dataset's examples that the pruned model is trained on, as `train` says; 0: no such recovery
    c.prune.recovery = Key(0.0, number(least=0, most=1))
    # ratios at which the model is evaluated, pruned by each criterion; empty: at prune.ratio alone
    c.prune.curve = Key((), each(number(above=0, below=1), rising=True))
    # random orders in these curves
    c.prune.draws = Key(3, whole(1))
