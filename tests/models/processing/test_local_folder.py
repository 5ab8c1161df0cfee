"""Folders whose files ask for other files: nothing is requested, run, or read outside."""

import json
import os
import shutil

import huggingface_hub.constants
import pytest

import merit_jax.models.processing.tokenizer_trial as trial
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.local_folder import offline
from merit_jax.models.processing.tokenizer import load_tokenizer
from tests.fuzz.guard import guarded
from tests.support import tiny_vision
from tests.support.tiny_tokenizer import tiny_tokenizer

ONEFORMER = {"repo_path": "attacker/repo", "class_info_file": "a.json", "num_text": 1}
FETCHES = {"image_processor_type": "OneFormerImageProcessor", **ONEFORMER}
UP = "../outside/tokenizer.json"


def change(file, **values):
    """Sets keys of a JSON file, which may be new."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vision-language folder, and a tokenizer outside of it; what reads them is imported."""
    root = tmp_path_factory.mktemp("made")
    tiny_tokenizer().save_pretrained(root / "outside")
    load_processor(tiny_vision.folder(root / "inside" / "model"))
    return root


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the folder, with its neighbour."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "inside" / "model"


IMAGES = {
    "type": ("preprocessor_config.json", FETCHES, "image_processor_type = 'OneFormerImageProcessor'; expected one of"),
    "fast": (
        "preprocessor_config.json",
        {**FETCHES, "image_processor_type": "OneFormerImageProcessorFast"},
        "OneFormer",
    ),
    "nested": ("processor_config.json", {"image_processor": FETCHES}, "'OneFormerImageProcessor'"),
    "config": ("config.json", FETCHES, "'OneFormerImageProcessor'"),
    "old key": (
        "preprocessor_config.json",
        {"image_processor_type": None, "feature_extractor_type": "OneFormerFeatureExtractor", **ONEFORMER},
        "feature_extractor_type = 'OneFormerFeatureExtractor'",
    ),
    "font": ("preprocessor_config.json", {"image_processor_type": "Pix2StructImageProcessor"}, "Pix2Struct"),
    "model": ("preprocessor_config.json", {"image_processor_type": "LlamaForCausalLM"}, "LlamaForCausalLM"),
    "no text": ("preprocessor_config.json", {"image_processor_type": ["x"]}, r"\['x'\]"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_processor_of_another_type_is_refused_before_it_is_made(folder, case):
    file, values, message = IMAGES[case]
    change(folder / file, **values)
    with guarded(folder) as seen, pytest.raises(ValueError, match=f"no image processor that can be read: .*{message}"):
        load_processor(folder)
    assert not seen


TOKENIZERS = {
    "image processor": ("tokenizer_config.json", {"tokenizer_class": "OneFormerImageProcessor"}, "is no tokenizer"),
    "function": ("tokenizer_config.json", {"tokenizer_class": "pipeline"}, "is no tokenizer of a language model"),
    "weights": (
        "config.json",
        {"tokenizer_class": "LlamaForCausalLM"},
        "config.json: tokenizer_class = 'LlamaForCausalLM'",
    ),
    "auto": ("tokenizer_config.json", {"tokenizer_class": "AutoModel"}, "is no tokenizer"),
    "number": ("tokenizer_config.json", {"tokenizer_class": 3}, "expected the name of a class"),
    "version": (
        "tokenizer_config.json",
        {"fast_tokenizer_files": [f"tokenizer.1.0.0/../{UP}"]},
        "fast_tokenizer_files",
    ),
    "absolute": ("tokenizer_config.json", {"fast_tokenizer_files": "/etc/passwd"}, "fast_tokenizer_files"),
    "gguf": ("tokenizer_config.json", {"gguf_file": "../outside/a.gguf"}, "gguf_file = '../outside/a.gguf'"),
    "inputs": ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}, "init_inputs"),
    "special": ("special_tokens_map.json", {"tokenizer_file": UP}, "'tokenizer_file' names no token"),
    "code": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["attacker/repo--a.B", None]}},
        "custom code|attacker",
    ),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_tokenizer_that_names_files_elsewhere_or_another_class_is_refused(folder, case):
    file, values, message = TOKENIZERS[case]
    if case == "code":
        change(folder / "config.json", model_type="llama")
        values = {**values, "tokenizer_class": None}
    change(folder / file, **values)
    with guarded(folder) as seen, pytest.raises(ValueError, match=f"no tokenizer that can be read: .*({message})"):
        load_tokenizer(folder)
    assert not seen


IDLE = {
    "special_tokens_map_file": "/root/.cache/special_tokens_map.json",
    "tokenizer_file": "/home/someone/tokenizer.json",
    "vocab_file": "/etc/passwd",
    "merges_file": "../outside/merges.txt",
    "name_or_path": "attacker/repo",
    "processor_class": "OneFormerProcessor",
}


def test_paths_of_the_machine_that_a_tokenizer_was_written_on_are_dropped(folder):
    ids = load_tokenizer(folder)("ab 12")["input_ids"]
    change(folder / "tokenizer_config.json", **IDLE)
    change(
        folder / "config.json",
        _name_or_path="attacker/repo",
        base_model_name_or_path="attacker/repo",
        configuration_files=["config.1.0.0/../../../outside/config.json"],
        auto_map={"AutoConfig": "attacker/repo--a.B"},
    )
    with guarded(folder) as seen:
        tokenizer = load_processor(folder).tokenizer
        assert tokenizer("ab 12")["input_ids"] == ids
    assert not seen


def test_without_a_tokenizer_json_no_other_file_takes_its_place(folder, monkeypatch):
    monkeypatch.setattr(trial, "_tried", lambda *_: "")
    (folder / "tokenizer.json").unlink()
    (folder.parents[1] / "outside" / "a.model").write_bytes(b"x")
    for key, value in (("vocab_file", "../outside/a.model"), ("vocab", UP), ("tokenizer_file", UP)):
        change(folder / "tokenizer_config.json", **{key: value})
    with guarded(folder) as seen, pytest.raises(ValueError, match="no tokenizer that can be read"):
        load_tokenizer(folder)
    assert not seen


def test_the_network_is_out_of_reach_meanwhile_and_as_before_afterwards(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with offline(), pytest.raises(Exception, match="offline mode is enabled"):
        huggingface_hub.HfApi().model_info("attacker/repo")
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_pipes_loops_of_links_and_folders_in_place_of_files_are_refused(folder):
    for name, make, message in (
        ("tokenizer.json", os.mkfifo, "a named pipe"),
        ("tokenizer_config.json", lambda file: file.symlink_to(file.name), "a loop of links"),
        ("special_tokens_map.json", lambda file: file.mkdir(), "a folder; expected a file"),
        ("merges.txt", lambda file: file.symlink_to("nothing"), "no such file"),
        ("chat_template.jinja", lambda file: file.symlink_to("/dev/zero"), "a device"),
    ):
        file = folder / name
        kept = file.read_bytes() if file.exists() else None
        file.unlink(missing_ok=True)
        make(file)
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            load_tokenizer(folder)
        file.rmdir() if file.is_dir() else file.unlink()
        if kept is not None:
            file.write_bytes(kept)
    load_tokenizer(folder)


def test_links_into_the_store_of_a_cache_are_read(folder, tmp_path):
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1", tmp_path / "cache" / "blobs"
    for made in (snapshot, blobs):
        made.mkdir(parents=True)
    for number, file in enumerate(folder.iterdir()):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert load_processor(snapshot).images.settings == load_processor(folder).images.settings


def with_part(folder, **parts):
    change(folder / "tokenizer.json", **parts)
    return folder


FIXED = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BOMBS = {
    "padding": (
        {"padding": {"strategy": {"Fixed": 2**40}, **FIXED}},
        "ends the process .SIGABRT.: it asks for more memory",
    ),
    "some": (
        {"padding": {"strategy": {"Fixed": 2**20}, **FIXED}},
        "it makes 1048576 tokens of a text of|it asks for more memory",
    ),
    "doubled": (
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 40}},
        "ends the process|takes too much memory|takes more than|tokens of a text",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_tokenizer_that_ends_the_process_is_refused_by_a_child(folder, monkeypatch, case):
    monkeypatch.setattr(trial, "ROOM", 2**26)
    monkeypatch.setattr(trial, "SECONDS", 2)
    parts, message = BOMBS[case]
    with pytest.raises(ValueError, match=f"no tokenizer that can be read: .*({message})"):
        load_tokenizer(with_part(folder, **parts))


def test_a_tokenizer_without_a_whole_file_is_tried_as_a_folder(folder, monkeypatch):
    (folder / "tokenizer.json").unlink()
    asked = []
    monkeypatch.setattr(trial, "_tried", lambda digest, subject, size: asked.append(subject) or "")
    trial.try_tokenizer(folder)
    assert asked == [str(folder)]


def test_a_tokenizer_is_tried_once(folder, monkeypatch):
    trial._tried.cache_clear()
    for _ in range(3):
        trial.try_tokenizer(folder)
    assert trial._tried.cache_info().misses == 1
    with_part(folder, version="1.1")
    trial.try_tokenizer(folder)
    assert trial._tried.cache_info().misses == 2
