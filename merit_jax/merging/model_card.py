"""Writes the model cards of runs, branches and merged folders, each from the record that `merit.json` holds next to it."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from merit_jax.core.dataset_slice import DatasetSlice
from merit_jax.core.text import visible
from merit_jax.merging.merger import UsedWeights
from merit_jax.merging.search_summary import block_names, summary
from merit_jax.workdir.paths import ORIGIN

FOLDER_PACKAGES = ("merit-jax", "jax", "numpy", "safetensors")
RUN_PACKAGES = ("merit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")
_ABSOLUTE = re.compile(r"([/~][^/\n]*/|[A-Za-z]:[/\\]|(?!https?:)[a-z][a-z0-9+.-]*://)[^\n]+")
"""A path from a machine's root or home, or in a bucket."""
_OF_HUB = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40,64}", re.ASCII)
"""A model or dataset of the hub at a commit."""
TOKEN_COLUMNS = {"supervised tokens": "tokens", "all tokens": "all_tokens"}
"""Column of a merged model's card -> key of its record."""

NO_MEAN = "The weights are those that the method uses; the model is not the weighted mean of its parts."
"""Sentence below the weights of an operator that is no weighted mean."""

PAPER = (
    "(Choi & Kim, *Decentralized Instruction Tuning: Conflict-Aware Splitting and Weight Merging*, ICML 2026, "
    "arXiv:2606.01717)"
)


def folder_card(
    base: str,
    models: Sequence[str],
    method: str,
    used: UsedWeights,
    options: Mapping[str, Any],
    tokens: Sequence[int] | None = None,
    exclude: Sequence[str] = (),
) -> dict[str, str]:
    """Returns the card of folders merged by name.

    Args:
        base: theta0, as the user named it; "OWNER/NAME@COMMIT" where it is of the hub.
        models: The models, likewise.
        method: Name of the operator.
        used: The weights that the operator used, in the order of `models`.
        options: Every option of the operator.
        tokens: Supervised tokens that each model was trained on, where the weights are theirs.
        exclude: Regular expressions over tensor names that stayed the base's.

    Returns:
        File name -> content: `README.md` with a Hugging Face header, and `merit.json`, the same for programs.
    """
    hub = [name for name in (base, *models) if _OF_HUB.fullmatch(name)]
    base, names, found = model_name(base), [model_name(model) for model in models], versions(FOLDER_PACKAGES)
    record = {
        **({ORIGIN: {"models": hub}} if hub else {}),
        "base": base,
        "models": names,
        "weights": None if used.values is None else list(used.values),
        "weighted_mean": used.mean and not exclude,
        **({} if tokens is None else {"tokens": list(tokens), "tokens_counted": "supervised"}),
        "merge": method,
        "options": dict(options),
        **({"exclude": list(exclude)} if exclude else {}),
        "versions": found,
    }
    columns = ("model",) if tokens is None else ("model", "supervised tokens")
    cells = zip(map(escape, names), *(() if tokens is None else (map(str, tokens),)), strict=True)
    body = f"""
Merged from models that descend from {escape(base)}, by `{method}` with the options `{json.dumps(dict(options))}`,
in float32, by merit-jax. Config and tokenizer are the base's{_left(exclude)}.

{_weighted_table(columns, list(cells), used, ".6g")}

Versions: {listed(found)}. `merit.json` next to this file has the options and any weights in full precision."""
    return card_files(record, f"{len(names)} models merged", body, base_model=base)


def _left(exclude: Sequence[str]) -> str:
    """Returns which tensors are the base's too, as the end of a sentence."""
    return f", and so are the tensors whose names have {' or '.join(f'`{p}`' for p in exclude)}" if exclude else ""


def merged_card(record: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, str]:
    """Returns the card of a run's merged model, as `folder_card` does.

    Args:
        record: Content of `merit.json`: the run's config, partition, used weights and their search, if any, tokens, and merged
            and missing branches.
        datasets: Names of the mixture's datasets.
    """
    config, branches = record["config"], record["partition"]["branches"]
    merged = [k for k in range(len(branches)) if k not in record["missing"]["branches"]]
    story = (
        f"{len(merged)} copies of `{_base(record)}` were fine-tuned apart from each other, each on its own part of\n"
        f"{len(datasets)} instruction datasets, and {'averaged' if record['weighted_mean'] else 'merged'} once"
    )
    settings = f"Split: `{config['partition']['method']}`; merge: `{record['merge']}`; seed: {config['seed']}."
    if excluded := config.get("merge", {}).get("exclude"):
        settings += (
            f" As in theta0: the parameters whose paths have {' or '.join(f'`{pattern}`' for pattern in excluded)}."
        )
    story += _rounds_note(config.get("rounds", {"count": 1, "warm": 0}))
    counts = {name: record[key] for name, key in TOKEN_COLUMNS.items() if key in record}
    rows = [(str(k), *(str(count[k]) for count in counts.values()), _shares(branches[k]["shares"])) for k in merged]
    columns, search = ("branch", *counts, "datasets"), record.get("search")
    if search and (blocks := block_names(search)):
        columns, cells = (*columns[:1], *blocks, *columns[1:]), zip(*search["rows"], strict=True)
        weights = [tuple(format(weight, ".4f") for weight in row) for row in cells]
        table = _table(columns, [(row[0], *weights[k], *row[1:]) for k, row in zip(merged, rows, strict=True)])
    else:
        values = record["weights"] and tuple(record["weights"][k] for k in merged)
        table = _weighted_table(columns, rows, UsedWeights(values, record["weighted_mean"]), ".4f")
    if search:
        settings += f"\n* {summary(search)}"
    return _run_files(record, datasets, story, settings, _missing_note(record) + table)


def _rounds_note(rounds: Mapping[str, Any]) -> str:
    """Returns the end of the story of a run in rounds; "" of another."""
    warm = f" after joint training on {100 * rounds['warm']:g} % of each dataset" if rounds["warm"] else ""
    if rounds["count"] == 1:
        return warm
    return f"{warm}, in the last of {rounds['count']} rounds, each from the model that the one before merged"


def branch_card(record: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, str]:
    """Returns the card of one branch, as `merged_card` does."""
    branch, config = record["branch"], record["config"]
    shares = record["partition"]["branches"][branch]["shares"]
    story = f"`{_base(record)}`, fine-tuned on {len(shares)} of {len(datasets)} instruction datasets: one branch, before merging"
    settings = f"Branch {branch} of the split `{config['partition']['method']}`; seed: {config['seed']}."
    listed = "\n".join(f"* {_share(share)}" for share in shares)
    body = f"{record['tokens']} supervised tokens in {record['steps']} steps of\n\n{listed}"
    return _run_files(record, datasets, story, settings, body)


def model_name(path: str) -> str:
    """Returns the name of a model: that of its folder, or its name on the hub.

    Examples:
        >>> model_name("models/SmolLM2-135M/"), model_name("Qwen/Qwen3-0.6B@c1899de289a04d12100db370d81485cdf75e47ca")
        ('SmolLM2-135M', 'Qwen/Qwen3-0.6B')
    """
    return path.partition("@")[0] if _OF_HUB.fullmatch(path) else folder_name(path)


def folder_name(path: str) -> str:
    """Returns a folder's own name, without the folders above it.

    Examples:
        >>> folder_name("models/SmolLM2-135M/")
        'SmolLM2-135M'
    """
    return path.rstrip("/").rsplit("/", 1)[-1]


def escape(text: str) -> str:
    r"""Returns a name as Markdown that shows it as it is, also in a cell of a table.

    Examples:
        >>> escape("a|b *c*")
        'a\\|b \\*c\\*'
    """
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", visible(" ".join(text.split())))


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of Python and of packages; "source" for one that runs from its source folder, not installed."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "source"

    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def without_folders(value: Any) -> Any:
    """Returns a record with the names of files in the place of absolute paths, which say where on a machine they were.

    Examples:
        >>> without_folders({"model": {"path": "/home/me/base/"}, "data": ["gs://bucket/a.json", "a/b.json"]})
        {'model': {'path': 'base'}, 'data': ['a.json', 'a/b.json']}
    """
    if isinstance(value, Mapping):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    if isinstance(value, str) and _ABSOLUTE.fullmatch(value):
        return folder_name(value.replace("\\", "/") if value[1] == ":" else value)
    return value


def card_files(record: Mapping[str, Any], title: str, body: str, **header: Any) -> dict[str, str]:
    """Returns a card with a Hugging Face header, and its record for programs: file name -> content."""
    from huggingface_hub import ModelCard, ModelCardData  # here, as importing it takes half a second

    record = without_folders(record)
    data = ModelCardData(library_name="transformers", tags=["merit", "merge"], **header)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n# {title}\n{body}\n")
    return {"README.md": str(card), "merit.json": json.dumps(record, indent=2) + "\n"}


def _run_files(
    record: Mapping[str, Any], datasets: Sequence[str], story: str, settings: str, details: str
) -> dict[str, str]:
    body = f"""
{story}
{PAPER}.

* {settings}
* theta0 fingerprint: `{record["theta0"]}`.{_hub_note(record)}{_skipped_note(record)}

{details}

Versions: {listed(record["versions"])}.

`merit.json` next to this file has the whole configuration, the partition and the weights in full precision."""
    base = _base(record)
    return card_files(record, f"{base}, fine-tuned by MERIT", body, base_model=base, datasets=list(datasets))


def _base(record: Mapping[str, Any]) -> str:
    return model_name(record.get(ORIGIN, {}).get("model") or without_folders(record["config"]["model"]["path"]))


def _hub_note(record: Mapping[str, Any]) -> str:
    """Returns the line on what came from the hub, and in which commit; "" without any."""
    found = record.get(ORIGIN, {})
    names = [*([found["model"]] if found.get("model") else []), *sorted(set(found.get("datasets", {}).values()))]
    return f"\n* Of the Hugging Face hub: {', '.join(f'`{name}`' for name in names)}." if names else ""


def _skipped_note(record: Mapping[str, Any]) -> str:
    """Returns the line on rows that could not be used; "" where every row was."""
    found = record.get("skipped", {})
    if not found:
        return ""
    listed = ", ".join(f"{escape(name) or 'of no dataset'} {count:,}" for name, count in found.items())
    return f"\n* Rows that could not be used and were skipped: {sum(found.values()):,} ({listed})."


def _missing_note(record: Mapping[str, Any]) -> str:
    """Returns the warning of an incomplete merge; "" of a complete one."""
    absent, shares = record["missing"]["branches"], record["missing"]["shares"]
    if not absent:
        return ""
    numbers, total = ", ".join(map(str, absent)), len(record["partition"]["branches"])
    lost = f"Missing datasets: {_shares(shares)}." if shares else "No dataset is missing."
    return f"**Incomplete**: of {total} branches (numbered from 0), {numbers} had not finished. {lost}\n\n"


def _weighted_table(columns: Sequence[str], rows: Sequence[Sequence[str]], used: UsedWeights, form: str) -> str:
    """A table with the weights that were used as the second column, and a sentence where they are not those of a mean."""
    if used.values is None:
        return f"{_table(columns, rows)}\n\nThe method uses no weights."
    weights = [format(weight, form) for weight in used.values]
    head, *others = columns
    body = [(row[0], weight, *row[1:]) for row, weight in zip(rows, weights, strict=True)]
    table = _table((head, "weight", *others), body)
    return table if used.mean else f"{table}\n\n{NO_MEAN}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shares(shares: Sequence[Sequence[Any]]) -> str:
    return ", ".join(_share(share) for share in shares)


def _share(share: Sequence[Any]) -> str:
    return escape(DatasetSlice(*share).described)


def listed(found: Mapping[str, str]) -> str:
    """Returns packages with their versions."""
    return ", ".join(f"{package} {version}" for package, version in found.items())
