"""A site's file: the gradients of its datasets with their names and counts, and none of their rows."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float32

from merit_jax.core.text import matches
from merit_jax.data.duplicates import all_marks
from merit_jax.data.elsewhere import FIELDS, describe, is_elsewhere
from merit_jax.gradients.store import GradientStore
from merit_jax.pipeline.estimate_gradients import gradient_inputs, stored_gradients
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import INPUTS, differences, plain, read_arrays, write_arrays
from merit_jax.workdir.checksums import fingerprint, sha256_array
from merit_jax.workdir.left_open import settled

KEYS = {"digest", "marks", "sha256", *FIELDS}
"""Keys of a dataset in a site's file."""


class SiteFile(NamedTuple):
    """The content of a site's file.

    Attributes:
        site: Name of the site.
        path: The file.
        inputs: Everything that all gradients were made from, as `gradient_inputs` has it.
        datasets: Name of each dataset -> digest, counts, marks of its content, checksum of its gradient.
        rows: The gradients, in that order.
        digest: sha256 over all of it.
    """

    site: str
    path: epath.Path
    inputs: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]]
    rows: Float32[np.ndarray, "t d"]
    digest: str


def write_site_file(run: Run, site: str, path: epath.Path) -> int:
    """Writes the file of a site whose gradients are stored; returns the number of its datasets.

    Raises:
        ValueError: The name is empty, or a gradient is missing or damaged.
    """
    if not site.strip() or path.suffix != ".npz":
        raise ValueError(f"--site={site!r} --out={path}: expected the name of this site, and a file that ends in .npz")
    own = [dataset for dataset in run.datasets if not is_elsewhere(dataset)]
    if not own:
        raise ValueError(
            "no dataset is here, so that there is nothing to send; set mixture.path to this site's datasets"
        )
    index, names = stored_gradients(run), [dataset.name for dataset in own]
    rows = GradientStore(run.workdir.gradients).rows(names)  # which compares them with their checksums
    entries = {
        dataset.name: {
            **describe(dataset),
            "digest": dataset.report.digest,
            "marks": list(all_marks(dataset)),
            "sha256": index["datasets"][dataset.name]["sha256"],
        }
        for dataset in own
    }
    inputs = plain(index[INPUTS])
    content = {"site": site, "datasets": entries}
    signed = json.dumps({**content, "sha256": fingerprint({INPUTS: inputs, **content})})
    run.on_first_process(lambda: write_arrays(path, inputs, site=signed, rows=np.stack([row[:] for row in rows])))
    return len(own)


def read_site_file(path: epath.Path) -> SiteFile:
    """Reads a site's file and compares it with its checksums.

    Raises:
        ValueError: It is missing, no site's file, or not as it was written.
    """
    if not path.exists():
        raise ValueError(f"{path} is missing; the site makes it by merit pack")
    try:
        arrays = read_arrays(path)
        inputs, content, rows = json.loads(str(arrays[INPUTS])), json.loads(str(arrays["site"])), arrays["rows"]
        site, entries, digest = content["site"], content["datasets"], content.pop("sha256")
        whole = digest == fingerprint({INPUTS: inputs, **content}) and all(
            entry.keys() >= KEYS for entry in entries.values()
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no site's file, or damaged ({error}); let the site send what merit pack wrote"
        ) from None
    if not whole or rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(entries):
        raise ValueError(f"{path} is not as it was written: its checksum does not match; let the site send it again")
    for (name, entry), row in zip(entries.items(), rows, strict=True):
        if sha256_array(row) != entry["sha256"]:
            raise ValueError(
                f"{path}: the gradient of dataset {name!r} is not as it was written; let the site send it again"
            )
    return SiteFile(site, path, inputs, entries, rows, digest)


def check_site_files(run: Run, files: list[SiteFile]) -> None:
    """Checks that files are of different sites and datasets, and their gradients of this run's model and settings.

    Raises:
        ValueError: They are not; files, datasets and differences are named.
    """
    sites: dict[str, SiteFile] = {}
    owner: dict[str, SiteFile] = {}
    for file in files:
        if file.site in sites:
            raise ValueError(
                f"{sites[file.site].path} and {file.path} are both of site {file.site!r}; give each site once"
            )
        sites[file.site] = file
        ours = plain(settled(gradient_inputs(run), file.inputs))
        if changes := differences(file.inputs, ours):
            raise ValueError(
                f"{file.path} (site {file.site!r}) was made from other inputs than this run's: {'; '.join(changes)}. Use one "
                "theta0, seed, chat template, and one section gradients at all sites, and let the site pack again"
            )
        if changes := differences(files[0].inputs, file.inputs):
            raise ValueError(f"{files[0].path} and {file.path} were made from other inputs: {'; '.join(changes)}")
        for name, entry in file.datasets.items():
            if name in owner and not _is_public_copy(run, name, entry, owner[name]):
                raise ValueError(
                    f"dataset {name!r} is in {owner[name].path} (site {owner[name].site!r}) and in {file.path} (site "
                    f"{file.site!r}); rename it at one of the two, or leave it out there with mixture.include. One of the same "
                    "files that may be trained on everywhere belongs into partition.core_datasets"
                )
            owner.setdefault(name, file)


def _is_public_copy(run: Run, name: str, entry: Mapping[str, Any], first: SiteFile) -> bool:
    """Returns whether a dataset is dealt over all branches, so that every site has it, and is the same as the first site's."""
    public = any(matches(name, pattern) for pattern in run.config.partition.core_datasets)
    return public and entry["digest"] == first.datasets[name]["digest"]
