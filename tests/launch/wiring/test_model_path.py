"""A model of the hub is found by its name: in the local cache, at the commit that a revision means, and recorded with it."""

import json

import pytest
from etils import epath
from huggingface_hub import errors

from merit_jax.core import hub
from merit_jax.core.hub import HubName
from merit_jax.launch.evaluate import theta0_of
from merit_jax.launch.export import branch_card
from merit_jax.launch.wiring.merge_folders import merge_folders
from merit_jax.launch.wiring.model_path import is_here, missing_file, resolve, resolve_settings
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.pipeline.stages import run_stages
from merit_jax.reporting.page import write_report
from merit_jax.workdir.artifacts import read_inputs, read_json
from tests.support import hub_cache, world
from tests.support.hub_cache import COMMIT, OTHER

NAME = "org/tiny"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = world.checkpoint(tmp_path_factory.mktemp("model") / "theta0")
    return hub_cache.files_of(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch, files):
    cache = hub_cache.use(tmp_path / "hub", monkeypatch)
    hub_cache.add(cache, NAME, files)
    monkeypatch.chdir(tmp_path)
    return cache


def test_a_name_means_the_commit_of_main(cache):
    found = resolve(NAME)
    assert found.path == cache / "models--org--tiny/snapshots" / COMMIT
    assert found.origin == f"org/tiny@{COMMIT}"
    assert is_here(NAME)
    assert not is_here("org/other")


def test_a_revision_means_its_own_commit(cache, files):
    hub_cache.add(cache, NAME, files, commit=OTHER, ref="v2")
    for name in (f"{NAME}@v2", f"{NAME}@{OTHER}", f"hub:{NAME}@v2"):
        assert resolve(name).origin == f"org/tiny@{OTHER}"


def test_a_local_folder_comes_before_the_hub_and_says_so(cache, tmp_path, caplog):
    (tmp_path / NAME).mkdir(parents=True)
    assert resolve(NAME) == (epath.Path(NAME), "")
    assert "model.path = org/tiny: the local folder of that name, not the hub's model" in caplog.text
    assert resolve(f"hub:{NAME}").origin == f"org/tiny@{COMMIT}"
    caplog.clear()
    (tmp_path / "org/own").mkdir()
    assert resolve("org/own").origin == ""
    assert not caplog.text


@pytest.mark.parametrize("path", ["theta0", "./org/tiny", "/a/org/tiny", "a/b/c", "../org", "a/b.gguf/c"])
def test_other_paths_are_no_names_of_the_hub(cache, path):
    assert resolve(path).origin == ""


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("org/none", "hf download org/none"),
        (f"{NAME}@v9", f"hf download {NAME} --revision v9"),
        ("hub:a/b", "hf download a/b"),
    ],
)
def test_what_is_not_in_the_cache_says_what_to_do(cache, name, command):
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE.*or give the path of a local folder") as error:
        resolve(name)
    assert f"run `{command}`" in str(error.value)
    assert str(cache) in str(error.value)
    assert str(error.value).startswith(f"model.path = {name!r}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_partial_snapshot_names_what_it_lacks(cache, files, lost):
    kept = {name: content for name, content in files.items() if not name.startswith(lost.removesuffix(".json"))}
    hub_cache.add(cache, "org/part", kept)
    with pytest.raises(ValueError, match=rf"has org/part without {lost}, and no network"):
        resolve("org/part")


def test_a_snapshot_that_its_list_says_is_partial_is_not_taken(cache, files):
    hub_cache.add(cache, "org/part", files, listed=(*files, "vocab.json", "pytorch_model.bin"))
    with pytest.raises(ValueError, match=r"does not have org/part, and no network"):
        resolve("org/part")
    hub_cache.add(
        cache, "org/whole", files, listed=(*files, "pytorch_model.bin", "modeling.py", "onnx/model.safetensors")
    )
    assert resolve("org/whole").origin == f"org/whole@{COMMIT}"


def test_a_model_of_pickles_is_refused_as_such(cache, files, monkeypatch):
    kept = {name: content for name, content in files.items() if name != "model.safetensors"}
    hub_cache.add(cache, "org/pickle", kept, listed=(*kept, "pytorch_model.bin"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match=r"model org/pickle@.* of the hub has no model\.safetensors, which is needed"):
        resolve(f"org/pickle@{COMMIT}")


def test_every_shard_of_the_index_is_needed(tmp_path):
    for name in ("config.json", "tokenizer.json", "model-1.safetensors"):
        (tmp_path / name).write_text("{}")
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert missing_file(tmp_path) == "model-2.safetensors"
    (tmp_path / "model-2.safetensors").touch()
    assert missing_file(tmp_path) == ""


class Response:
    status_code, headers, request, url = 404, {}, None, "https://huggingface.co/api/models/org/x"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.GatedRepoError,
            r"org/x is gated: accept its terms at https://huggingface\.co/org/x, log in with `hf auth login`",
        ),
        (errors.RepositoryNotFoundError, r"org/x is neither a local folder nor a model of the hub that you may read"),
        (errors.RevisionNotFoundError, r"org/x has no revision 'v1'; give a branch, tag or commit of https"),
        (errors.HfHubHTTPError, r"does not have org/x@v1, and the hub cannot be asked \(HfHubHTTPError: 500"),
        (lambda text, response: RuntimeError(text), r"and the hub cannot be asked \(RuntimeError: 500"),
    ],
)
def test_each_refusal_of_the_hub_is_one_sentence_with_its_mend(cache, monkeypatch, error, message):
    hub_cache.use(cache, monkeypatch, offline=False)

    def download(*_, local, **__):
        raise (
            errors.LocalEntryNotFoundError("none") if local else error("500 of the hub\nand more", response=Response())
        )

    monkeypatch.setattr(hub, "_download", download)
    with pytest.raises(ValueError, match=rf"model\.path = 'org/x@v1': .*{message}") as found:
        resolve("org/x@v1")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("number", "text"), [(28, "No space left"), (13, "Permission denied")])
def test_a_full_disk_stays_an_error_of_the_disk(cache, monkeypatch, number, text):
    def download(*_, local, **__):
        raise errors.LocalEntryNotFoundError("none") if local else OSError(number, text)

    monkeypatch.setattr(hub, "_download", download)
    with pytest.raises(OSError, match=text):
        resolve("org/x")


def test_only_data_is_downloaded(cache, monkeypatch):
    asked: dict = {}

    def snapshot_download(name, **options):
        asked.update({} if asked else options)
        raise errors.LocalEntryNotFoundError("none")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ValueError, match="org/x"):
        resolve("org/x@v1")
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model",
        "LICENSE",
    ]
    there += ["chat_template.jinja", "merges.txt", "additional_chat_templates/tool.jinja"]
    never = [
        "pytorch_model.bin",
        "model.pt",
        "model.pkl",
        "modeling.py",
        "consolidated.safetensors",
        "onnx/config.json",
    ]
    never += ["original/consolidated.00.pth", "a.gguf", "image.png", "tf_model.h5", "flax_model.msgpack"]
    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*there, *never], **patterns)) == there
    assert asked["revision"] == "v1"


def test_a_plan_takes_no_weights(cache, files, tmp_path):
    hub_cache.add(cache, "org/bare", {"config.json": files["config.json"]}, listed=tuple(files))
    config = world.config(tmp_path, **{"model.path": "org/bare"})
    assert PlanInputs(config, "float32").model.layers == 2
    assert resolve_settings(NAME).origin == f"org/tiny@{COMMIT}"
    with pytest.raises(
        ValueError, match=r"run `hf download org/none`.*; or plan for one of .*, whose config\.json is shipped"
    ):
        PlanInputs(world.config(tmp_path, **{"model.path": "org/none"}), "float32")
    plan = PlanInputs(world.config(tmp_path, **{"model.path": "Qwen/Qwen2.5-3B"}), "bfloat16")
    assert plan.where.endswith("Qwen2.5-3B/config.json")


def test_a_merge_of_the_hubs_models_names_their_commits(cache, files, tmp_path):
    world.checkpoint(tmp_path / "tuned", seed=1)
    hub_cache.add(cache, "org/tuned", hub_cache.files_of(tmp_path / "tuned"))
    merge_folders(NAME, ["org/tuned", str(tmp_path / "tuned")], None, "uniform", {}, str(tmp_path / "out"))
    record = json.loads((tmp_path / "out/merit.json").read_text())
    assert (record["base"], record["models"]) == (NAME, ["org/tuned", "tuned"])
    assert record["hub"]["models"] == [f"{NAME}@{COMMIT}", f"org/tuned@{COMMIT}"]
    assert f"base_model: {NAME}\n" in (tmp_path / "out/README.md").read_text()
    assert f"org/tuned@{COMMIT}" in (tmp_path / "out/mergekit.yaml").read_text()


def test_an_adapter_needs_its_own_two_files_and_no_more(cache):
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b""}
    hub_cache.add(cache, "org/adapter", files)
    assert resolve("org/adapter").origin == f"org/adapter@{COMMIT}"
    hub_cache.add(cache, "org/half", {"adapter_config.json": b"{}"})
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors"):
        resolve("org/half")


@pytest.fixture
def run(cache, tmp_path):
    rows = "".join(json.dumps({"inputs": f"say {word}", "targets": word}) + "\n" for word in ("ab", "cd", "ef", "gh"))
    for name in ("one", "two", "three"):
        hub_cache.add(cache, f"data/{name}", {"train.jsonl": rows.replace("say", name).encode()}, kind="dataset")
    manifest = {name: {"hf_hub_url": f"data/{name}"} for name in ("one", "two", "three")}
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    changes = {"model.path": NAME, "mixture.path": str(tmp_path / "m.json")}
    return world.run(tmp_path, "run", "random2", **changes)


@pytest.mark.usefixtures("one_device")
def test_a_run_records_the_commits_that_it_was_made_from(run, tmp_path):
    run_stages(run, ["mixture", "partition", "train", "merge", "export"])
    assert read_inputs(run.workdir.theta0)["hub"] == f"{NAME}@{COMMIT}"
    assert {entry["from"] for entry in read_json(run.workdir.mixture)["datasets"].values()} == {
        f"data/{name}@{COMMIT}" for name in ("one", "two", "three")
    }
    record = json.loads((run.workdir.merged_hf / "merit.json").read_text())
    assert record["hub"] == {
        "model": f"{NAME}@{COMMIT}",
        "datasets": {n: f"data/{n}@{COMMIT}" for n in ("one", "three", "two")},
    }
    card = (run.workdir.merged_hf / "README.md").read_text()
    assert f"base_model: {NAME}\n" in card
    assert f"* Of the Hugging Face hub: `{NAME}@{COMMIT}`, `data/one@{COMMIT}`" in card
    assert theta0_of(str(run.workdir.merged_hf), None) == f"{NAME}@{COMMIT}"
    assert branch_card(run, 0)["README.md"].count(COMMIT) >= 2
    page = write_report(run.workdir, "run").read_text()
    assert f"{NAME}@{COMMIT}" in page
    assert f"data/two@{COMMIT}" in page


def test_names_of_the_hub():
    assert str(HubName("a/b", "v", "model")) == "a/b@v"
    assert hub.parse_hub_name("a/b@refs/pr/1", "model").revision == "refs/pr/1"
    assert hub.parse_hub_name("a--b/c", "model") is None
