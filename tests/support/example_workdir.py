"""A workdir written by hand: every artifact a run can leave, of a few datasets whose names try to break the page."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = "<script>alert(1)</script>"
NAMES = (
    HOSTILE,
    'quote"d',
    "$a_b^c$",
    "Überlänge, die über den Rand hinausgehen würde, wenn sie nicht gekürzt wird",
    "a&b",
)
NAMES = (*NAMES, "plain", "task_6", "task_7")
GROUPS = (0, 1, 2, 3, 0, 1, 2, 3)
MODELS = ("theta0", "joint", "random4:partition.seed=1", "merged")
SUITES = {"describe": 50, "short_answer": 80, "ocr": 40}


def write(root: Path, *, diagnostics: bool = True) -> Path:
    """A finished run."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shares = [[[name, 0, 1] for name, group in zip(NAMES, GROUPS, strict=True) if group == k] for k in range(4)]
    branches = [{"shares": s, "samples": 100 + k, "tokens": 1000 * (k + 1), "seed": k} for k, s in enumerate(shares)]
    settings = {
        "method": "merit2d",
        "seed": 0,
        "model": {"path": "models/<b>theta0</b>"},
        "train": {"learning_rate": 1e-4},
    }
    _json(root / "config.json", settings | {"partition": {"method": "median_split"}})
    entry = {"samples": 50, "tokens": 500}
    _json(
        root / "mixture.json",
        {"inputs": {"datasets": dict.fromkeys(NAMES, "0" * 64)}, "datasets": dict.fromkeys(NAMES, entry)},
    )
    norms = {name: {"norm": 1.0 + i} for i, name in enumerate(NAMES)}
    _json(root / "gradients" / "index.json", {"inputs": {}, "datasets": norms})
    _conflict(root / "conflict.npz", rng)
    _json(root / "partition.json", {"inputs": {}, "method": "median_split", "branches": branches})
    for k in range(4):
        _branch(root / "branches" / str(k), k)
    _branch(root / "baselines" / "joint" / "branches" / "0", 4)
    distances = {"merged": 1.5, "branches": [2.0, 2.1, 2.2, 2.3]}
    record = {"inputs": {}, "method": "token_weighted", "weights": [0.1, 0.2, 0.3, 0.4], "weighted_mean": True}
    record["displacement"] = distances
    _json(root / "merged" / "merge.json", record)
    _json(root / "merged" / "hf" / "merit.json", {"inputs": {}, "versions": {"jax": "0.10.2"}})
    ways = {"theta0": [0.0] * 8, "merged": [0.2] * 8, "branch 0": [0.1 * i for i in range(8)]}
    _json(root / "projection.json", {"inputs": {}, "cosines": ways})
    _json(root / "theta0.json", {"inputs": {}, "fingerprint": "f" * 64})
    _json(root / "evaluation.json", evaluation())
    _json(root / "frontier.json", frontier())
    _json(
        root / "times.json", {"gradients": 12.0, "train": 60.0, "baseline joint": 55.5, "evaluate": 30.0, "export": 0.1}
    )
    if diagnostics:
        for name, result in diagnosed(rng).items():
            _json(root / "diagnostics" / f"{name}.json", {"inputs": {}, "result": result, "seconds": 1.0})
    return root


def evaluation() -> dict[str, Any]:
    """Scores of suites, one of them of old skills."""
    models = {}
    for i, name in enumerate(MODELS):
        suites = {
            s: {"accuracy": 0.2 + 0.1 * i, "records": n, "metric": "exact_match", "correct": [0.2 + 0.1 * i] * n}
            for s, n in SUITES.items()
        }
        models[name] = {"inputs": {}, "displacement": 1.3 * i, "suites": suites, "suites_mean": {"accuracy": 0.3}}
        models[name]["mixture_loss"] = 2.0 - 0.1 * i
    questions = {name: [f"{i:012x}" for i in range(n)] for name, n in SUITES.items()}
    return {
        "inputs": {"half": "reporting", "evaluate": {"retained": ["desc*"]}},
        "questions": questions,
        "models": models,
    }


def frontier() -> dict[str, Any]:
    """Frontiers of all models: the merged one is kept at λ = 0.5, the others at theta0."""
    models = {}
    for i, name in enumerate(MODELS):
        points = [[0.0, 0.7, 0.3]]
        points += [[0.5, 0.69, 0.35], [1.0, 0.7 - 0.1 * i, 0.4 + 0.05 * i], [2.0, 0.3, 0.5]] if i else []
        scale, retained, skill = points[name == "merged"]
        kept = {"scale": scale, "retained": retained, "skill": skill, "correct": {}}
        models[name] = {"inputs": {}, "points": points, "choosing": points, "kept": kept}
    return {"inputs": {"frontier": {"retention": 0.95}}, "models": models}


def diagnosed(rng: np.random.Generator) -> dict[str, Any]:
    """Results of all diagnostics, with nulls where they had nothing to say."""
    alphas = np.linspace(0, 1, 21)
    branches = [f"branch {k}" for k in range(4)]
    pairs = [(a, b) for i, a in enumerate(branches) for b in branches[i + 1 :]] + [(a, "merged") for a in branches]
    paths = [
        {"start": a, "end": b, "losses": (1 + 0.1 * i + 0.3 * (alphas - 0.5) ** 2).tolist(), "barrier": 0.0}
        for i, (a, b) in enumerate(pairs)
    ]
    grid = np.linspace(-2, 3, 15)
    bowl = (grid[None] - 0.8) ** 2 + 2 * (grid[:, None] - 0.1) ** 2 + 1
    split = {"gain": [0.028], "branches": [0.058], "merged": [0.03]}
    draws = rng.uniform(0.01, 0.03, 40)
    identity = {"branches": 4.0, "merged": 2.0, "spread": 2.0, "residual": 1e-9, "contraction": 0.5}
    alignment = {"cosines": [[0.3]], "angles": [69.5], "largest": 0.3, "mean_top": 0.14}
    chance = {"mean": 1e-4, "std": 1e-5, "draws": 10000, "z_score": 15386.0, "p_value": 1e-4}
    alignment |= {"gaussian": chance, "span": {**chance, "mean": 0.13, "std": 0.01, "z_score": None, "p_value": 0.2}}
    dataset = {"examples": 60, "cosines": [0.6, 0.8, None], "reliability_std": 0.1, "expected": [0.5, 0.7, 0.8]}
    return {
        "connectivity": {"alphas": alphas.tolist(), "paths": paths, "barrier": 0.0},
        "displacement": {
            "names": [*branches, "merged", "joint"],
            "distances": [2.0, 2.1, 2.2, 2.3, 1.5, 4.0],
            "cosines": np.where(np.eye(6), 1, 0.4).tolist(),
            "parallel_axis": identity,
            "joint_over_merged": 2.67,
            "trajectories": [
                {"name": n, "steps": [1, 5, 9], "epochs": [0.1, 0.5, 1], "distances": [0.3, 1, 2]} for n in branches
            ],
        },
        "perturbation": {
            "sigmas": [0.01, 0.05, 0.1],
            "models": [
                {
                    "name": n,
                    "loss": 1.0,
                    "increases": [],
                    "mean": [0.01, 0.2, s],
                    "std": [0.01, None, 0.1],
                    "auc": s / 10,
                }
                for n, s in (("merged", 0.8), ("joint", 1.6))
            ],
        },
        "surface": {
            "x": grid.tolist(),
            "y": grid.tolist(),
            "losses": bowl.tolist(),
            "names": [*branches, "merged"],
            "places": [[1, 1], [1, -1], [2, 0.5], [0.5, 0.2], [1.1, 0]],
            "off": [0.5, 0.4, 0.3, 0.2, 0.0],
        },
        "gain": {
            "weights": [0.1, 0.2, 0.3, 0.4],
            "branch_losses": [1.3, 1.2, 1.25, 1.1],
            "mean_branch_loss": 1.19,
            "merged_loss": 0.99,
            "obtained": 0.2,
            "predicted": 0.18,
        },
        "split_gain": {
            "chosen": split,
            "random": {"gain": draws.tolist(), "branches": (0.03 + draws).tolist(), "merged": [0.03] * 40},
            "best": split,
            "best_groups": list(GROUPS),
            "rank": 0.9,
        },
        "calibration": {
            "sizes": [20, 40, 80],
            "cosine": [0.6, 0.8, None],
            "std": [0.1, 0.1, None],
            "low": [0.5, 0.7, None],
            "high": [0.7, 0.9, None],
            "target": 0.9,
            "datasets": [
                {"name": n, "reliability": 0.1 * i, "needed": 900 / i if i else None, **dataset}
                for i, n in enumerate(NAMES)
            ],
        },
        "sketch": {
            "datasets": list(NAMES),
            "entries": 1000,
            "similarity": [],
            "rows": [
                {
                    "reduction": "stride",
                    "size": 5,
                    "entries": 200,
                    "pearson": 0.99,
                    "spearman": 0.98,
                    "mae": 0.02,
                    "rmse": 0.03,
                }
            ],
        },
        "gradient_norms": {
            "names": list(NAMES),
            "norms": [1.0] * 8,
            "rows": [
                {"trimmed": t, "datasets": 8, "mean": 24.0, "std": 9.0, "cv": 0.4, "ratio": 7.1}
                for t in (0.0, 0.05, 0.1)
            ],
        },
        "curvature": {
            "eigenvalues": [9.0, 5.0, 2.0],
            "residuals": [0.0, 0.0, 0.0],
            "dimension": 1000,
            "raw": alignment,
            "centred": alignment,
        },
    }


def _conflict(path: Path, rng: np.random.Generator) -> None:
    units = rng.normal(size=(8, 5))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    C = units @ units.T
    U, S, Vt = np.linalg.svd(C - C.mean(axis=0))
    arrays = {
        "similarity": C,
        "scores": U[:, :3] * S[:3],
        "explained": S[:3] ** 2 / (S**2).sum(),
        "components": Vt[:3].T,
    }
    np.savez(path, inputs="{}", names=np.array(NAMES), **{k: v.astype(np.float32) for k, v in arrays.items()})


def _branch(folder: Path, index: int) -> None:
    losses = [2 * math.exp(-i / 3) + 0.1 * index for i in range(6)]
    own = [name for name, group in zip(NAMES, GROUPS, strict=True) if group == index]

    def each(loss: float) -> dict[str, float]:
        return {name: loss + sign * 0.3 for name, sign in zip(own, (-1, 1), strict=False)}

    lines = [
        {
            "step": 10 * i,
            **({"loss": loss, "gradient_norm": 1.5} if i else {}),
            **({"loss_by_dataset": each(loss), "count_by_dataset": dict.fromkeys(own, 50)} if i else {}),
            "held_out_loss": loss + 0.1,
            "held_out_by_dataset": each(loss + 0.1),
        }
        for i, loss in enumerate(losses)
    ]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _json(folder / "done.json", {"inputs": {}, "steps": 50, "tokens": 1000 * (index + 1), "seconds": 12.0})


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
