"""Data that stays at its site: gradients travel, rows do not, and the run is that of all data in one place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from merit_jax.data.elsewhere import RowsElsewhere, is_elsewhere
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.join_sites import join_sites
from merit_jax.pipeline.site_file import read_site_file, write_site_file
from merit_jax.pipeline.stages import BEFORE, run_stages
from merit_jax.pipeline.train_branches import train_branch
from tests.support import world

SITES = {"a": ("copy", "upper"), "b": ("first", "length"), "c": ("reverse", "vowel")}
"""Site -> its datasets, of the six of the world."""

AWAY = {"mixture.elsewhere": True}


def site(root, name, datasets, **changes):
    """A run at a site that holds these datasets of the world under `root` and no others."""
    data = root / "sites" / name / "data"
    data.mkdir(parents=True)
    for file in (root / "data").iterdir():
        if file.name.split(".")[0] in datasets:
            shutil.copy(file, data)
    return world.run(root, f"sites/{name}/work", **{**AWAY, "mixture.path": f"{data}/*.train.jsonl", **changes})


def packed(run, name):
    run_stages(run, ["mixture", "gradients"])
    path = epath.Path(run.workdir.root.parent / f"{name}.npz")
    write_site_file(run, name, path)
    return path


def joined(root, paths, workdir="joined", method="merit2d", **changes):
    run = world.run(root, workdir, method, **{**AWAY, "mixture.path": "", **changes})
    join_sites(run, [read_site_file(path) for path in paths])
    run_stages(run, BEFORE)
    return run


@pytest.fixture(scope="module")
def sites(finished, tmp_path_factory):
    """Three sites with files, next to the theta0 and data of the finished run."""
    root = world.beside(finished, tmp_path_factory.mktemp("sites"))
    runs = {name: site(root, name, datasets) for name, datasets in SITES.items()}
    return root, runs, [packed(run, name) for name, run in runs.items()]


@pytest.fixture(scope="module")
def whole(sites):
    """The joined run, whose branches each site has trained that can, and that is merged and exported."""
    root, _, paths = sites
    return joined(root, paths)


def arrays_of(path):
    with np.load(path) as file:
        return dict(file)


def branches_of(run):
    return json.loads(run.workdir.partition.read_text())["branches"]


def test_the_split_of_joined_sites_is_that_of_one_place(finished, whole):
    assert branches_of(whole) == branches_of(finished)
    ours, theirs = (arrays_of(run.workdir.conflict) for run in (whole, finished))
    for name in ("similarity", "scores", "same_as", "names"):
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_site_file_holds_no_row(sites):
    _, runs, paths = sites
    rows = [
        row["inputs"]
        for row in map(
            json.loads, Path(runs["a"].config.mixture.path).parent.joinpath("copy.train.jsonl").read_text().splitlines()
        )
    ]
    content = paths[0].read_bytes()
    assert rows
    assert not [row for row in rows if row.encode() in content]


def test_branches_trained_at_their_sites_and_merged_without_data_have_the_bits_of_one_place(finished, sites, tmp_path):
    root, _, paths = sites
    free = joined(root, paths, "free")
    for k, branch in enumerate(branches_of(free)):
        datasets = {share[0] for share in branch["shares"]}
        alone = site(root, f"trainer-{k}", datasets)
        shutil.copy(free.workdir.partition, alone.workdir.partition)
        assert train_branch(alone, k)
        shutil.copytree(alone.workdir.branch(k), free.workdir.branch(k))
    run_stages(free, ["merge", "export"])
    ours, theirs = (json.loads(run.workdir.merge_record.read_text()) for run in (free, finished))
    assert ours["weights"] == theirs["weights"]
    a, b = (world.exported(run.workdir.merged_hf) for run in (free, finished))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_a_branch_whose_data_is_elsewhere_is_refused_by_the_dataset_and_its_site(sites, whole):
    _, runs, _ = sites
    run = runs["b"]
    shutil.copy(whole.workdir.partition, run.workdir.partition)
    away = next(
        (k, share[0])
        for k, branch in enumerate(branches_of(whole))
        for share in branch["shares"]
        if share[0] not in SITES["b"]
    )
    with pytest.raises(ValueError, match=r"its rows are needed here, and they are at site '[ac]'") as error:
        train_branch(run, away[0])
    assert not run.workdir.branch_done(away[0]).exists()
    assert "mixture.path" in str(error.value)


def test_groups_stay_within_sites_when_told_and_the_cost_is_recorded(sites):
    root, _, paths = sites
    run = joined(root, paths, "apart", **{"partition.sites": ("joined",)})
    content = json.loads(run.workdir.partition.read_text())
    owner = {name: name_of for name_of, datasets in SITES.items() for name in datasets}
    groups = [{owner[share[0]] for share in branch["shares"]} for branch in content["branches"]]
    assert all(len(group) == 1 for group in groups)
    assert set.union(*groups) == set(SITES)
    inside = content["sites"]
    C = arrays_of(run.workdir.conflict)
    names = C["names"].tolist()
    pairs = [
        C["similarity"][names.index(a), names.index(b)]
        for branch in content["branches"]
        for i, (a, *_) in enumerate(branch["shares"])
        for b, *_ in branch["shares"][:i]
    ]
    assert inside["cosine_inside"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert inside["of"] == owner


def test_rules_name_sites_without_a_join(finished, tmp_path):
    world.beside(finished, tmp_path)
    rules = ("copy=a", "upper=a", "first=b", "length=b", "reverse=c", "vowel=c")
    run = world.run(tmp_path, "rules", **{"partition.sites": rules})
    run_stages(run, BEFORE)
    owner = {name: site for site, datasets in SITES.items() for name in datasets}
    assert all(len({owner[share[0]] for share in branch["shares"]}) == 1 for branch in branches_of(run))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "text.seed: 7 -> 0"),
        ({"gradients.reduction": "stride"}, "gradients.reduction"),
        ({"gradients.examples": 5}, "gradients.examples: 5 -> 8"),
    ],
)
def test_a_file_from_another_setting_is_refused_by_name(sites, tmp_path, changes, said):
    root, _, _ = sites
    name = "other-" + "-".join(changes)
    run = site(root, name, ("copy",), **changes)
    path = packed(run, "d")
    with pytest.raises(ValueError, match="was made from other inputs than this run's") as error:
        joined(root, [path], f"refused-{name}")
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert not (root / f"refused-{name}" / "elsewhere.json").exists()


@pytest.mark.parametrize(("kind", "said"), [("theta0", "theta0: "), ("template", "text.tokenizer: ")])
def test_a_file_from_another_start_or_template_is_refused_by_name(sites, kind, said):
    root, _, _ = sites
    other = world.checkpoint(root / f"{kind}-other", seed=int(kind == "theta0"))
    if kind == "template":
        settings = json.loads((other / "tokenizer_config.json").read_text())
        file = other / "chat_template.jinja"
        text = file.read_text() if file.exists() else settings.pop("chat_template")
        (other / "tokenizer_config.json").write_text(json.dumps(settings))
        file.write_text(text + "\n")
    path = packed(site(root, f"site-{kind}", ("copy",), **{"model.path": str(other)}), kind)
    with pytest.raises(ValueError, match="was made from other inputs than this run's") as error:
        joined(root, [path], f"refused-{kind}")
    assert said in str(error.value)


def test_two_sites_with_one_dataset_are_refused(sites):
    root, _, paths = sites
    path = packed(site(root, "twin", ("copy",)), "twin")
    with pytest.raises(ValueError, match=r"dataset 'copy' is in .*a.npz \(site 'a'\) and in .*twin.npz"):
        joined(root, [*paths, path], "twins")


def test_a_public_dataset_that_every_site_has_is_dealt_over_the_branches_of_all(sites):
    root, _, paths = sites
    twin = packed(site(root, "public", ("copy",)), "public")
    options = {"partition.core_datasets": ("copy",), "partition.sites": ("joined",), "partition.groups": 4}
    run = joined(root, [*paths, twin], "with-public", **options)
    owner = {name: own for own, datasets in SITES.items() for name in datasets}
    for branch in branches_of(run):
        assert [share[0] for share in branch["shares"]].count("copy") == 1
        assert len({owner[share[0]] for share in branch["shares"] if share[0] != "copy"}) == 1
    train = site(root, "public-trainer", ("copy", *SITES["b"]), **options)
    shutil.copy(run.workdir.partition, train.workdir.partition)
    number = next(k for k, branch in enumerate(branches_of(run)) if "first" in {share[0] for share in branch["shares"]})
    assert train_branch(train, number)


def test_a_dataset_here_and_elsewhere_is_refused(sites):
    root, runs, paths = sites
    with pytest.raises(ValueError, match=r"dataset 'copy' is here, under mixture\.path, and at another site"):
        joined(root, paths, "both", **{"mixture.path": runs["a"].config.mixture.path})


def test_a_site_file_of_a_flipped_byte_is_refused(sites, tmp_path):
    _, _, paths = sites
    arrays = arrays_of(paths[0])
    arrays["rows"][1, 3] += 1
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match="the gradient of dataset 'upper' is not as it was written"):
        read_site_file(epath.Path(tmp_path / "bad.npz"))
    arrays = {
        **arrays_of(paths[0]),
        "site": np.array(str(arrays_of(paths[0])["site"]).replace('"samples": ', '"samples": 1')),
    }
    np.savez(tmp_path / "counts.npz", **arrays)
    with pytest.raises(ValueError, match="its checksum does not match"):
        read_site_file(epath.Path(tmp_path / "counts.npz"))


def test_another_array_file_is_no_site_file(tmp_path):
    np.savez(tmp_path / "x.npz", rows=np.zeros(3))
    with pytest.raises(ValueError, match="is no site's file"):
        read_site_file(epath.Path(tmp_path / "x.npz"))
    with pytest.raises(ValueError, match="is missing; the site makes it by merit pack"):
        read_site_file(epath.Path(tmp_path / "y.npz"))


def test_a_site_may_follow_later_and_none_is_forgotten(sites):
    root, _, paths = sites
    first = joined(root, paths[:2], "later", "merit1d")
    assert len(branches_of(first)) == 2
    with pytest.raises(ValueError, match="the file of site 'b', which was joined before, is not among these"):
        joined(root, paths[:1], "later", "merit1d")
    with pytest.raises(ValueError, match="made from other inputs"):  # the split was of two sites
        joined(root, paths, "later", "merit1d")
    run = world.run(root, "later", "merit1d", overwrite=True, **{**AWAY, "mixture.path": ""})
    run_stages(run, BEFORE)
    names = {share[0] for branch in branches_of(run) for share in branch["shares"]}
    assert names == {name for datasets in SITES.values() for name in datasets}


def test_joining_needs_the_key_that_says_so(sites):
    root, _, paths = sites
    with pytest.raises(ValueError, match=r"mixture\.elsewhere is not set"):
        join_sites(world.run(root, "unsaid"), [read_site_file(path) for path in paths])


def test_a_dataset_that_the_partition_lacks_is_refused(sites, whole):
    root, _, _ = sites
    run = site(root, "stranger", ("copy",))
    data = Path(run.config.mixture.path).parent
    (data / "copy.train.jsonl").rename(data / "novel.train.jsonl")
    (data / "copy.test.jsonl").rename(data / "novel.test.jsonl")
    shutil.copy(whole.workdir.partition, run.workdir.partition)
    with pytest.raises(ValueError, match=r"dataset 'novel' is here, .* does not have it"):
        _ = run.datasets


def test_a_machine_with_part_of_a_manifest_trains_the_branches_that_it_can(finished, tmp_path):
    world.beside(finished, tmp_path, data=False)
    branch = branches_of(finished)[1]
    own = {share[0] for share in branch["shares"]}
    source = Path(finished.config.mixture.path).parent
    (tmp_path / "data").mkdir()
    for name in own:
        shutil.copy(source / f"{name}.train.jsonl", tmp_path / "data")
        shutil.copy(source / f"{name}.test.jsonl", tmp_path / "data")
    run = world.run(tmp_path, "part", **AWAY)
    shutil.copy(finished.workdir.partition, run.workdir.partition)
    assert train_branch(run, 1)
    a, b = (json.loads(r.workdir.branch_done(1).read_text()) for r in (run, finished))
    assert a["fingerprint"] == b["fingerprint"]


def test_a_manifest_entry_without_files_is_elsewhere(finished, tmp_path):
    world.beside(finished, tmp_path, data=False)
    data = tmp_path / "data"
    shutil.copytree(Path(finished.config.mixture.path).parent, data)
    names = [Path(file).name.split(".")[0] for file in sorted(data.glob("*.train.jsonl"))]
    manifest = {n: {"file_name": f"{n}.train.jsonl", "eval_file_name": f"{n}.test.jsonl"} for n in names}
    (data / "m.json").write_text(json.dumps(manifest))
    options = {**AWAY, "mixture.path": str(data / "m.json")}
    first = world.run(tmp_path, "first", **options)
    run_stages(first, BEFORE)
    second = world.run(tmp_path, "second", **options)
    shutil.copy(first.workdir.partition, second.workdir.partition)
    for file in data.glob(f"{names[0]}.*"):
        file.unlink()
    assert [d.name for d in second.datasets if is_elsewhere(d)] == names[:1]
    assert isinstance(second.datasets[0].train, RowsElsewhere)
    assert second.digests() == first.digests()
    assert second.tokens == first.tokens


def test_what_is_evaluated_says_which_held_out_records_are_elsewhere(finished, tmp_path, caplog):
    root = world.beside(finished, tmp_path)
    run = world.copied(finished, root, **{**AWAY, "mixture.include": ("copy", "upper")}, overwrite=True)
    assert evaluate_models(run)
    assert "are elsewhere, and are not evaluated here" in caplog.text
    content = json.loads(run.workdir.evaluation.read_text())
    inputs = content.get("inputs") or next(iter(content["models"].values()))["inputs"]
    assert "first" in json.dumps(inputs)
