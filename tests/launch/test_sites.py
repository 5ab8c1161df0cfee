"""Three sites in folders and processes of their own, with no path in common, make the model of one place, bit for bit."""

import json
import shutil

import pytest

from merit_jax.reporting.page import write_report
from merit_jax.workdir.paths import Workdir
from tests.support import commands, world
from tests.support.commands import read, start, wait

pytestmark = pytest.mark.slow

SITES = {"hospital": ("copy", "upper"), "clinic": ("first", "length"), "lab": ("reverse", "vowel")}
RULES = tuple(f"{dataset}={site}" for site, datasets in SITES.items() for dataset in datasets)
AWAY = ("--config.mixture.elsewhere=True", "--config.partition.sites=('joined',)")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run with all data in one place, and the sites given as rules."""
    root = commands.world_at(tmp_path_factory.mktemp("one"))
    stages = "mixture,gradients,conflict,partition,train,merge,export"
    wait(start("run", root, "run", f"--config.partition.sites={RULES!r}", *GROUPS, f"--stages={stages}"))
    return root


GROUPS = ("--config.partition.groups=4",)


@pytest.fixture(scope="module")
def places(one, tmp_path_factory):
    """A folder for each site and one for the hub, each with a theta0 of its own; the hub has no data."""
    found = {name: tmp_path_factory.mktemp(name) for name in (*SITES, "hub")}
    for name, root in found.items():
        shutil.copytree(one / "theta0", root / "theta0")
        (root / "data").mkdir()
        commands.write_config(root / "config.py", root, epochs=3.0)
        for dataset in SITES.get(name, ()):
            for file in (one / "data").glob(f"{dataset}.*"):
                shutil.copy(file, root / "data")
    return found


def test_three_sites_make_the_model_of_one_place(one, places):
    hub, nowhere = places["hub"], "--config.mixture.path="
    for name in SITES:
        root = places[name]
        wait(start("pack", root, "work", *AWAY, *GROUPS, f"--site={name}", f"--out={root / 'out.npz'}"))
        shutil.copy(root / "out.npz", hub / f"{name}.npz")
    files = ",".join(str(hub / f"{name}.npz") for name in SITES)
    wait(start("join", hub, "work", *AWAY, *GROUPS, nowhere, f"--sites={files}"))
    branches = read(hub / "work" / "partition.json")["branches"]
    assert branches == read(one / "run" / "partition.json")["branches"]
    for k, branch in enumerate(branches):
        (name,) = (name for name in SITES if branch["shares"][0][0] in SITES[name])
        root = places[name]
        shutil.copy(hub / "work" / "partition.json", root / "work")
        wait(start("branch", root, "work", *AWAY, *GROUPS, f"--branch={k}"))
        shutil.copytree(root / "work" / "branches" / str(k), hub / "work" / "branches" / str(k))
    wait(start("run", hub, "work", *AWAY, *GROUPS, nowhere, "--stages=merge,export"))
    commands.same_bits(*(world.exported(root / "merged" / "hf") for root in (one / "run", hub / "work")))
    weights = [read(root / "merged" / "merge.json")["weights"] for root in (one / "run", hub / "work")]
    assert weights[0] == weights[1]
    assert "copy" in json.dumps(read(hub / "work" / "merged" / "hf" / "merit.json"))
    page = write_report(Workdir.at(hub / "work"), "work").read_text()
    assert "No branch has datasets of two of the 3 sites" in page
    assert all(dataset in page for datasets in SITES.values() for dataset in datasets)


def test_a_branch_of_another_site_ends_with_one_line(places):
    root, k = places["clinic"], None
    for index, branch in enumerate(read(root / "work" / "partition.json")["branches"]):
        if branch["shares"][0][0] not in SITES["clinic"]:
            k = index
    process = start("branch", root, "work", *AWAY, *GROUPS, f"--branch={k}")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 65
    assert "its rows are needed here, and they are at site" in output
    assert "Traceback" not in output
