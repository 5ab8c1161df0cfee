"""Checks a config before anything is read: every value by its range, and keys that go together."""

from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from merit_jax.configs.common import declared, variant
from merit_jax.configs.schema.keys import ranges, value_of
from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS
from merit_jax.merging.options import declared_options, resolve_options
from merit_jax.merging.statistics import SECOND_MOMENT
from merit_jax.partition import ASSIGNMENTS, PARTITIONERS
from merit_jax.pipeline.branch_parameters import ADAPTER_SPACE
from merit_jax.pipeline.merge_options import given_options
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.search_settings import search_problems
from merit_jax.training.schedule_free import SCHEDULE_FREE, check_schedule
from merit_jax.training.second_moment import check_second_moment


def check(config: ConfigDict) -> ConfigDict:
    """Returns the config.

    Raises:
        ValueError: A value is out of its key's range, or does not go together with another, here or in a baseline; the key is
            named.
    """
    check_keys(config)
    for spec in config.baselines:
        try:
            check_keys(variant(config, spec))
        except ValueError as error:
            raise ValueError(f"baselines: {spec!r}: {error}") from None
    return config


def check_keys(config: ConfigDict) -> None:
    """Checks the values of a config, but not its baselines.

    Raises:
        ValueError: As for `check`.
    """
    for name, allowed in ranges(declared()).items():
        if not allowed.holds(value := value_of(config, name)):
            raise ValueError(f"{name} = {value!r}; expected {allowed.words}")
    for rule in RULES:
        for problem in rule(config):
            raise ValueError(problem)


def _micro_batches(config: ConfigDict) -> Iterator[str]:
    cfg = config.train
    if cfg.batch_size % cfg.micro_batches:
        yield (
            f"train.batch_size = {cfg.batch_size} cannot be split into train.micro_batches = {cfg.micro_batches} equal parts; "
            "change one of the two"
        )


def _sequence(config: ConfigDict) -> Iterator[str]:
    length, devices = config.train.row_length, config.mesh.sequence
    if length % devices:
        yield (
            f"train.row_length = {length} cannot be shared by mesh.sequence = {devices} devices; use a multiple of {devices}, or "
            "fewer of them"
        )


def _halvings(config: ConfigDict) -> Iterator[str]:
    cfg = config.partition
    if cfg.method in ("median_split", "random") and cfg.groups & (cfg.groups - 1):
        yield f"partition.groups = {cfg.groups}; {cfg.method} halves the mixture: expected a power of two"


def _softness(config: ConfigDict) -> Iterator[str]:
    cfg = config.partition
    found = PARTITIONERS.get(cfg.method)
    if cfg.softness and found is not None and found.soft is None and cfg.groups > 1:
        known = ", ".join(name for name, each in PARTITIONERS.items() if each.soft)
        yield f"partition.softness = {cfg.softness}; {cfg.method} has no soft form: expected 0, or one of {known}"


def _sites(config: ConfigDict) -> Iterator[str]:
    cfg = config.partition
    if cfg.sites and (cfg.method in ASSIGNMENTS or cfg.groups == 1):
        yield (
            f"partition.sites = {tuple(cfg.sites)}, and {cfg.method} with {cfg.groups} groups trains branches on the data of all "
            "sites; leave it empty, or choose a method that groups datasets"
        )
    if cfg.sites and cfg.core:
        yield (
            f"partition.core = {cfg.core} deals a share of every dataset over the branches of all sites; with partition.sites, "
            "name the datasets that may move in partition.core_datasets, and set it to 0"
        )
    if cfg.sites and cfg.like:
        yield f"partition.like = {cfg.like!r} takes over groups that may cross partition.sites; leave one of the two empty"
    if cfg.sites and config.rounds.warm:
        yield (
            f"rounds.warm = {config.rounds.warm:g} trains one model on the data of all sites; set it to 0, or leave "
            "partition.sites empty"
        )
    if "joined" in cfg.sites and not config.mixture.elsewhere:
        yield "partition.sites = 'joined' takes the sites that merit join found; set mixture.elsewhere, or give PATTERN=SITE"


def _merge_options(config: ConfigDict) -> Iterator[str]:
    cfg = config.merge
    given, operator = given_options(cfg), lookup(MERGERS, cfg.method, "merge.method").leaf
    if cfg.match and "scale" not in declared_options(operator):
        yield f"merge.match = {cfg.match!r} decides a scale, and {cfg.method} takes none; leave it empty"
    if cfg.match and cfg.exclude:
        yield f"merge.match = {cfg.match!r} takes a distance of all parameters, and merge.exclude moves some; leave one empty"
    if given or cfg.method != "interpolate":  # whose scale an experiment finds
        resolve_options(operator, given)


def _search(config: ConfigDict) -> Iterator[str]:
    yield from search_problems(config)


def _agreement(config: ConfigDict) -> Iterator[str]:
    cfg = config.evaluate
    if cfg.agreement and not cfg.suites:
        yield f"evaluate.agreement = {tuple(cfg.agreement)} is of suites, and there are none; set evaluate.suites"


def _second_moment(config: ConfigDict) -> Iterator[str]:
    if config.train.keep_second_moment:
        check_second_moment(config.train.optimizer)
    elif lookup(MERGERS, config.merge.method, "merge.method").statistic == SECOND_MOMENT:
        yield (
            f"merge.method = {config.merge.method!r} needs the second moment of Adam, which branches keep with "
            "train.keep_second_moment = True; set it, and train the branches with it"
        )


def _schedule_free(config: ConfigDict) -> Iterator[str]:
    check_schedule(config.train.optimizer, config.train.schedule)
    if config.train.optimizer in SCHEDULE_FREE and not config.train.b1:
        yield f"train.b1 = 0; {config.train.optimizer} trains between two sequences of parameters: expected a number above 0"


def _early_stopping(config: ConfigDict) -> Iterator[str]:
    cfg = config.train
    if cfg.patience and not cfg.held_out_every:
        yield (
            f"train.patience = {cfg.patience} counts evaluations on held-out examples, and there are none; set "
            "train.held_out_every, or train.patience to 0"
        )
    if cfg.patience and cfg.keep_second_moment:
        yield (
            f"train.patience = {cfg.patience} may keep an earlier state, of which there is no second moment; set "
            "train.keep_second_moment to False, or train.patience to 0"
        )


def _adapter(config: ConfigDict) -> Iterator[str]:
    train = config.train
    if config.gradients.space == ADAPTER_SPACE and not train.adapter:
        yield "gradients.space = 'adapter' takes gradients of the updates of train.adapter, which is empty; set it to 'lora', say"
    if config.gradients.space == ADAPTER_SPACE and config.conflict.similarity == "curvature":
        yield "conflict.similarity = 'curvature' needs gradients of theta0's own parameters; set gradients.space = 'full'"
    if train.adapter and train.keep_second_moment:
        yield (
            f"train.keep_second_moment keeps that of the trained leaves, which with train.adapter = {train.adapter!r} are no "
            "parameters of the merged model; leave one of the two out"
        )


def _calibration(config: ConfigDict) -> Iterator[str]:
    cfg = config.diagnostics
    if any(size % cfg.calibration_block for size in cfg.calibration_sizes):
        yield (
            f"diagnostics.calibration_sizes = {tuple(cfg.calibration_sizes)}; expected multiples of "
            f"diagnostics.calibration_block = {cfg.calibration_block}"
        )


def _eigenvectors(config: ConfigDict) -> Iterator[str]:
    cfg = config.diagnostics
    if cfg.eigenvectors > cfg.iterations:
        yield (
            f"diagnostics.eigenvectors = {cfg.eigenvectors}; expected at most diagnostics.iterations = {cfg.iterations}, which "
            "find one each"
        )


def _basin(config: ConfigDict) -> Iterator[str]:
    if config.basin.rebuild and not config.basin.stages:
        yield "basin.rebuild is set, but basin.stages is empty; list the config files of its stages"


def _schedule_span(config: ConfigDict) -> Iterator[str]:
    span = config.train.schedule_span
    if len(span) != 2:
        yield f"train.schedule_span = {tuple(span)}; expected two shares, where the branch begins and where it ends"


def _rounds(config: ConfigDict) -> Iterator[str]:
    cfg, epochs = config.rounds, config.train.epochs
    if cfg.part == "epochs" and epochs % cfg.count:
        yield (
            f"train.epochs = {epochs:g} cannot be split into rounds.count = {cfg.count} equal parts of whole epochs; change one "
            'of the two, or set rounds.part = "examples"'
        )
    if in_rounds(config) and config.merge.branches:
        yield (
            f"merge.branches = {config.merge.branches!r} merges branches that are trained, and rounds train their own; leave it "
            "empty, or set rounds.count = 1 and rounds.warm = 0"
        )
    if config.merge.search_evaluations and (cfg.outer_rate, cfg.momentum) != (1, 0):
        yield (
            f"merge.search_evaluations = {config.merge.search_evaluations} searches the weights of an average, which "
            f"rounds.outer_rate = {cfg.outer_rate:g} and rounds.momentum = {cfg.momentum:g} step beyond; set them to 1 and 0, "
            "or merge.search_evaluations to 0"
        )
    if in_rounds(config) and config.merge.match:
        yield (
            f"merge.match = {config.merge.match!r} takes a distance from theta0, and rounds start elsewhere; leave it empty, or "
            "set rounds.count = 1 and rounds.warm = 0"
        )


def _prune(config: ConfigDict) -> Iterator[str]:
    cfg = config.prune
    if cfg.criterion == "hies" and len(cfg.alpha) > 1 and not config.evaluate.suites:
        yield (
            f"prune.alpha = {tuple(cfg.alpha)}: one of several is chosen by scores on the suites, and there are none; set "
            "evaluate.suites, or give one"
        )
    if len({*cfg.parts}) < len(cfg.parts):
        yield f"prune.parts = {tuple(cfg.parts)} names a part twice; leave one out"
    if cfg.curve and not cfg.ratio:
        yield f"prune.curve = {tuple(cfg.curve)} is of a model that is pruned, and prune.ratio is 0; set prune.ratio"


RULES: tuple[Callable[[ConfigDict], Iterator[str]], ...] = (
    _micro_batches,
    _sequence,
    _halvings,
    _softness,
    _sites,
    _merge_options,
    _search,
    _agreement,
    _second_moment,
    _schedule_free,
    _early_stopping,
    _adapter,
    _calibration,
    _eigenvectors,
    _basin,
    _schedule_span,
    _rounds,
    _prune,
)
"""Each yields a sentence for what does not go together."""
