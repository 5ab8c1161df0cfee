"""The origin of the run: settings, fingerprints, versions."""

import json
from collections.abc import Iterator

from merit_jax.reporting.blocks import Missing, Part, Section, Table, Verbatim
from merit_jax.reporting.run_data import Artifacts


def provenance(artifacts: Artifacts) -> Section:
    """Returns the section with enough to make the run again."""
    return Section("provenance", "Provenance", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    rows = [["theta0", artifacts.fingerprint]] if artifacts.fingerprint else []
    rows += [[f"dataset {name}", digest] for name, digest in artifacts.digests.items()]
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
