"""The study on SmolLM2 whole, on a tiny theta0: what it reports is what was measured, and a killed one goes on."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks import smollm2_seed, smollm2_table, study_smollm2, theta0_answers
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.configs import smollm2_study
from merit_jax.core.errors import FailedError
from merit_jax.workdir.artifacts import read_arrays, read_json
from merit_jax.workdir.paths import absolute
from tests.support import world
from tests.support.tiny_tokenizer import tiny_tokenizer

pytestmark = pytest.mark.slow

METHODS = ("joint", "wise", "examples2", "random2", "random2:partition.seed=1", "merit1d")
SEEDS = (0, 1)
RETAINED = ("theta0_explain", "theta0_know")


def talkative(path):
    """A random model that says letters, and ends most of its answers."""
    world.checkpoint(path, seed=2, layers=1)
    settings, tensors = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
    said = [tiny_tokenizer().convert_tokens_to_ids(token) for token in ("<|im_end|>", *"abcdefgh")]
    head = np.zeros_like(tensors["model.embed_tokens.weight"])
    head[said] = np.random.default_rng(2).normal(size=(len(said), head.shape[1]))
    (path / "config.json").write_text(json.dumps({**settings, "tie_word_embeddings": False}))
    save_file({**tensors, "lm_head.weight": head}, path / "model.safetensors", metadata={"format": "pt"})


def few_prompts():
    """Some of the shipped prompts of two kinds."""
    prompts = theta0_answers.read_prompts()
    return {kind: [text for text in prompts[kind] if len(text) < 60][:7] for kind in ("explain", "know")}


def config(folder):
    """The study's config in the sizes of the tiny world."""
    found = smollm2_study.get_config("merit1d").unlock()
    found.model.path = str(folder / "theta0")
    found.mixture.max_length = 160
    found.gradients.update({"examples": 4, "batch_size": 8, "buckets": (160,)})
    found.train.update({"row_length": 160, "learning_rate": 1e-2})
    found.evaluate.update({"batch_size": 16, "buckets": (160,), "max_new_tokens": 4, "max_suite_records": 0})
    found.frontier.scales = (0.5, 1.0)
    return found.lock()


@pytest.fixture(scope="module")
def study(tmp_path_factory, compiled, one_device):
    """(its folder, its config, the table); not to be written to."""
    folder = tmp_path_factory.mktemp("study")
    talkative(folder / "theta0")
    world.mixture(folder / "data", tasks=("copy", "upper", "first", "vowel"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_smollm2, "read_prompts", few_prompts)
        root = absolute(folder / "study")
        made = study_smollm2.study_config(config(folder), root, study_smollm2.tasks(folder / "data"))
        theta0 = study_smollm2.answer(made, root, 24)
        for seed in SEEDS:
            smollm2_seed.run_seed(made, root, METHODS, seed, theta0, keep=seed == 0)
        yield root, made, study_smollm2.report(made, root, METHODS, (*SEEDS, 7))


@pytest.fixture(scope="module")
def content(study):
    return read_json(study[0] / "study.json")


def task_vectors(root, method):
    """The task vectors of a method's branches of seed 0, [k, parameters]."""
    models = [OrbaxLeaves(next(path.glob("checkpoints/*/params"))) for path in branches(root / "seed-0", method)]
    theta0 = world.exported(root.parent / "theta0")
    return np.stack([np.concatenate([np.ravel(m.read(p).astype(float) - theta0[p]) for p in theta0]) for m in models])


def branches(folder, method):
    return sorted((folder / "methods" / method / "branches").glob("[0-9]"))


def test_every_model_of_every_seed_is_in_the_result(content):
    assert set(content["seeds"]) == {"0", "1"}
    for found in content["seeds"].values():
        assert set(found["models"]) == {"theta0", *METHODS}
        assert found["gradients"]["datasets"] == 4
        assert sorted(found["gradients"]["cosine_quartiles"]) == found["gradients"]["cosine_quartiles"]
    assert set(content["methods"]) == {"theta0", "joint", "wise", "examples2", "random2", "merit1d"}
    assert content["methods"]["random2"]["skill"]["runs"] == 4


def test_methods_train_on_the_same_tokens(content):
    for found in content["seeds"].values():
        tokens = {name: model["tokens"] for name, model in found["models"].items()}
        assert tokens.pop("theta0") == 0
        assert len(set(tokens.values())) == 1


def test_theta0_agrees_with_itself_and_what_moves_away_does_less(content):
    for found in content["seeds"].values():
        theta0, joint = (found["models"][name] for name in ("theta0", "joint"))
        assert theta0["retained"] == 1
        assert joint["retained"] < 1
        assert joint["nats"] > theta0["nats"] > 0


def test_scores_are_those_of_the_evaluation_by_kind_of_suite(study, content):
    suites = read_json(study[0] / "seed-1" / "evaluation.json")["models"]["merit1d"]["suites"]
    found = content["seeds"]["1"]["models"]["merit1d"]
    assert set(suites) == {*RETAINED, "copy", "upper", "first", "vowel"}
    skill = [score["accuracy"] for name, score in suites.items() if name not in RETAINED]
    assert found["skill"] == pytest.approx(np.mean(skill))
    assert found["retained"] == pytest.approx(np.mean([suites[name]["accuracy"] for name in RETAINED]))
    assert {suites[name]["metric"] for name in RETAINED} == {"agreement"}
    assert suites["copy"]["loss"] is None
    tokens = [suites[name]["tokens"] for name in RETAINED]
    nats = np.average([suites[name]["loss"] for name in RETAINED], weights=tokens)
    assert found["nats"] == pytest.approx(nats)


def test_the_cosine_of_task_vectors_is_that_of_the_parameters(study, content):
    models = content["seeds"]["0"]["models"]
    for method in ("merit1d", "examples2"):
        one, other = task_vectors(study[0], method)
        expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert models[method]["task_vector_cosine"] == pytest.approx(expected, abs=1e-4)
    assert "task_vector_cosine" not in models["joint"]


def test_the_cosines_of_gradients_are_those_inside_and_across_the_branches(study, content):
    arrays = read_arrays(study[0] / "seed-0" / "conflict.npz")
    C, names = arrays["similarity"].astype(float), arrays["names"].tolist()
    partition = read_json(study[0] / "seed-0" / "methods" / "merit1d" / "partition.json")
    groups = [[names.index(share[0]) for share in branch["shares"]] for branch in partition["branches"]]
    inside = [C[i, j] for group in groups for i in group for j in group if i < j]
    found = content["seeds"]["0"]["models"]
    assert found["merit1d"]["inside"] == pytest.approx(np.mean(inside))
    assert found["merit1d"]["across"] == pytest.approx(np.mean([C[i, j] for i in groups[0] for j in groups[1]]))
    everything = np.mean(C[np.triu_indices(len(C), 1)])
    assert [found["examples2"][key] for key in ("inside", "across")] == pytest.approx([everything] * 2)
    assert "inside" not in found["joint"]


def test_the_table_has_every_method_with_its_differences(study, content):
    lines = (study[0] / "study.md").read_text().splitlines()
    assert lines[0] == study[2].splitlines()[0]
    header, rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], lines[2])), lines[2:8]
    titles = next(header)
    assert [row.split("|")[1].strip() for row in rows] == list(content["methods"])
    merit = dict(zip(titles, [cell.strip() for cell in rows[-1].strip("|").split("|")], strict=True))
    for test in smollm2_table.TESTS:
        found = content["methods"]["merit1d"]["tests"][test]
        assert merit[test].startswith(f"{100 * found['difference']:+z.1f} [")
        assert f"p = {found['p']:.3g}, Holm {found['holm']:.3g} (n = 2)" in merit[test]
    assert merit["nats of theta0's answers"].startswith(f"{content['methods']['merit1d']['nats']['mean']:.3f} ±")
    assert content["tests"]["number"] == sum(len(one["tests"]) for one in content["methods"].values())


def test_a_finished_seed_keeps_its_parameters_only_if_asked(study):
    root, *_ = study
    assert branches(root / "seed-0", "joint")
    assert branches(root / "seed-1", "joint")
    assert list(root.glob("seed-0/methods/*/merged/params"))
    assert not list(root.glob("seed-1/methods/*/merged/params"))
    assert not list(root.glob("seed-1/methods/*/branches/*/checkpoints"))


def test_what_is_finished_is_neither_made_nor_measured_again(study, monkeypatch):
    root, made, table = study
    monkeypatch.setattr(smollm2_seed, "run_experiment", None)
    monkeypatch.setattr(theta0_answers, "completions", None)
    theta0 = study_smollm2.answer(made, root, 24)
    smollm2_seed.run_seed(made, root, METHODS, 1, theta0)
    assert study_smollm2.report(made, root, METHODS, SEEDS) == table
    with pytest.raises(ValueError, match=r"seed-1\.json.*methods"):
        smollm2_seed.run_seed(made, root, METHODS[:-1], 1, theta0)


def test_the_command_runs_what_is_missing_and_prints_the_table(study, monkeypatch, capsys):
    root, _, table = study
    given, started = config(root.parent).unlock(), []
    given.model.path = ""
    flags = SimpleNamespace(
        **{"data": root.parent / "data", "tasks": [], "theta0": str(root.parent / "theta0"), "out": str(root)},
        **{"methods": ",".join(METHODS), "seeds": ["0", "1"], "parallel": 2, "answer_tokens": 24},
        **{"keep_models": True, "part": ""},
    )

    def run_parts(parts, words, folder, together):
        for part in parts:
            started.append((part, together))
            flags.part = part
            study_smollm2.main([])

    monkeypatch.setattr(study_smollm2, "FLAGS", flags)
    monkeypatch.setattr(study_smollm2, "read_prompts", few_prompts)
    monkeypatch.setattr(study_smollm2, "run_parts", run_parts)
    monkeypatch.setattr(study_smollm2.app, "config", lambda: given)
    monkeypatch.setattr(smollm2_seed, "run_experiment", None)
    monkeypatch.setattr(theta0_answers, "completions", None)
    study_smollm2.main([])
    assert started == [("theta0_answers", 1), ("seed-0", 2), ("seed-1", 2)]
    assert capsys.readouterr().out == f"{table}\n"
    flags.part, flags.methods = "", "joint,merit1d:train.epochs=2"
    with pytest.raises(ValueError, match="differ in budget"):
        study_smollm2.main([])
    flags.seeds = ["0", "0"]
    with pytest.raises(ValueError, match=r"--seeds=0,0: expected different whole numbers"):
        study_smollm2.main([])


def test_a_seed_that_was_killed_goes_on_with_what_it_has(study, tmp_path, monkeypatch):
    root, made, _ = study
    theta0 = read_json(root / "theta0_answers" / "answers.json")["inputs"]["theta0"]
    begun, finish = [], smollm2_seed.run_experiment

    def killed(*arguments, **options):
        begun.append(finish(*arguments, **options))
        if len(begun) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(smollm2_seed, "run_experiment", killed)
    other = absolute(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        smollm2_seed.run_seed(made, other, ("joint",), 3, theta0, keep=True)
    (done,) = other.glob("seed-3/methods/joint/branches/0/done.json")
    before = done.stat().mtime
    assert not (other / "seed-3.json").exists()
    smollm2_seed.run_seed(made, other, ("joint",), 3, theta0, keep=True)
    assert (other / "seed-3.json").exists()
    assert done.stat().mtime == before


def test_tasks_need_both_files_and_patterns_choose_them(tmp_path):
    world.mixture(tmp_path, tasks=("copy", "upper", "first"))
    assert list(study_smollm2.tasks(tmp_path, ["c*", "first"])) == ["copy", "first"]
    with pytest.raises(ValueError, match=r"--tasks: no dataset matches \['x'\]"):
        study_smollm2.tasks(tmp_path, ["x"])
    (tmp_path / "upper.test.jsonl").unlink()
    with pytest.raises(ValueError, match=r"upper\.test\.jsonl is missing"):
        study_smollm2.tasks(tmp_path)
    with pytest.raises(ValueError, match=r"no TASK\.train\.jsonl there"):
        study_smollm2.tasks(tmp_path / "nowhere")


def test_theta0_that_ends_no_answer_is_refused(study):
    root, made, _ = study
    with pytest.raises(ValueError, match=r"fewer than 2 of its answers .* kind know within 2 tokens"):
        study_smollm2.write_answers(
            study_smollm2.open_run.open_run(made, root.parent / "short"),
            absolute(root.parent / "short"),
            {"know": ["What is it?"]},
            2,
        )


def test_parts_run_at_the_same_time_share_the_memory_and_one_that_fails_is_named(tmp_path, monkeypatch):
    started = []

    def run(command, env, stdout=None, stderr=None):
        started.append((command[-1], env.get("XLA_PYTHON_CLIENT_MEM_FRACTION"), stdout is not None))
        return subprocess.CompletedProcess(command, 3 if command[-1] == "--part=seed-1" else 0)

    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setattr(study_smollm2.subprocess, "run", run)
    study_smollm2.run_parts(["theta0_answers"], ["--out=x"], tmp_path, 1)
    with pytest.raises(FailedError, match=r"stopped at seed-1 \(exit code 3\); see .*seed-1\.log"):
        study_smollm2.run_parts([f"seed-{seed}" for seed in range(3)], ["--out=x"], tmp_path, 3)
    assert started[0] == ("--part=theta0_answers", None, False)
    assert sorted(started[1:]) == [(f"--part=seed-{seed}", "0.30", True) for seed in range(3)]


@pytest.mark.parametrize(("given", "seeds", "expected"), [(2, 3, 2), (5, 3, 3), (1, 3, 1)])
def test_no_more_seeds_run_at_once_than_there_are(given, seeds, expected):
    assert study_smollm2.at_once(given, seeds) == expected


def test_the_shipped_prompts_are_different_and_of_four_kinds():
    prompts = theta0_answers.read_prompts()
    texts = [text for kind in prompts.values() for text in kind]
    assert len(prompts) == 4
    assert len(set(texts)) == len(texts) == 96
