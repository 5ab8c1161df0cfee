"""The origin of the run: settings, fingerprints, versions."""

import json
from collections.abc import Iterator

from merit_jax.reporting.blocks import Missing, Part, Section, Table, Verbatim
from merit_jax.reporting.run_data import Artifacts


def provenance(artifacts: Artifacts) -> Section:
    """Returns the section with enough to make the run again."""
    return Section("provenance", "Provenance", tuple(_parts(artifacts)))


def _origins(artifacts: Artifacts) -> list[list[str]]:
    """Returns what came from the hub, with its commit."""
    found = [["theta0", artifacts.origin]] if artifacts.origin else []
    return found + [
        [f"dataset {name}", entry["from"]] for name, entry in artifacts.datasets.items() if entry.get("from")
    ]


def _skipped(artifacts: Artifacts) -> list[list[str]]:
    """Returns how many rows of each dataset were skipped, where some were, and of all."""
    counts = {name: len(entry.get("skipped", ())) for name, entry in artifacts.datasets.items()}
    kept = {name: entry["samples"] + entry.get("held_out", 0) for name, entry in artifacts.datasets.items()}
    rows = [[name, f"{count:,}", f"{kept[name]:,}"] for name, count in counts.items() if count]
    rows += [["(of no dataset)", f"{artifacts.unplaced:,}", ""]] if artifacts.unplaced else []
    total = sum(counts.values()) + artifacts.unplaced
    return [*rows, ["all", f"{total:,}", f"{sum(kept.values()):,}"]] if total else []


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    rows = [["theta0", artifacts.fingerprint]] if artifacts.fingerprint else []
    rows += [[f"dataset {name}", digest] for name, digest in artifacts.digests.items()]
    if origins := _origins(artifacts):
        yield Table("Of the Hugging Face hub", ["what", "name and commit"], origins, words=(1,))
    if skipped := _skipped(artifacts):
        columns = ["dataset", "rows skipped", "rows of an epoch, and held out"]
        yield Table("Rows that could not be used and were skipped; mixture.json lists each", columns, skipped)
    if rows:
        yield Table("Fingerprints (sha256)", ["of", "value"], rows, words=(1,), folded=True)
    if artifacts.versions:
        versions = [[name, version] for name, version in artifacts.versions.items()]
        yield Table(
            "Versions that the merged model was made with", ["package", "version"], versions, words=(1,), folded=True
        )
    else:
        yield Missing("Versions of the packages", artifacts.run_command("export"))
    if artifacts.config:
        yield Verbatim("Configuration", json.dumps(artifacts.config, indent=2))
    else:
        yield Missing("The configuration", artifacts.run_command())
