"""The merge operators as their papers state them, in plain float64 numpy, for one matrix [out, in] of every branch."""

import numpy as np


def top(tau: np.ndarray, density: float) -> np.ndarray:
    """The largest entries by magnitude."""
    keep = np.argsort(-np.abs(tau).ravel(), kind="stable")[: max(1, int(density * tau.size))]
    mask = np.zeros(tau.size)
    mask[keep] = 1
    return tau * mask.reshape(tau.shape)


def consensus(taus, election, mean) -> np.ndarray:
    """Elects a sign per entry, then averages the entries that have it."""
    merged = np.zeros_like(taus[0])
    for place in np.ndindex(merged.shape):
        entries = np.array([tau[place] for tau in taus])
        agree = (np.sign(entries) == np.sign(election @ entries)) & (entries != 0)
        if agree.any():
            merged[place] = np.average(entries[agree], weights=mean[agree])
    return merged


def star(tau, eta):
    u, s, vt = np.linalg.svd(tau, full_matrices=False)
    rank = next(r for r in range(1, len(s) + 1) if s[:r].sum() >= eta * s.sum())
    return u[:, :rank] * (s[:rank] * s.sum() / s[:rank].sum()) @ vt[:rank]


def procrustes(matrix):
    p, _, qt = np.linalg.svd(matrix, full_matrices=False)
    return p @ qt


def tsv_m(taus):
    count = min(taus[0].shape) // len(taus)
    parts = [np.linalg.svd(tau, full_matrices=False) for tau in taus]
    u, s, vt = (
        np.concatenate([u[:, :count] for u, _, _ in parts], axis=1),
        np.concatenate([s[:count] for _, s, _ in parts]),
        np.concatenate([vt[:count] for _, _, vt in parts]),
    )
    return procrustes(u) @ np.diag(s) @ procrustes(vt)


def iso_c(taus):
    u, s, vt = np.linalg.svd(sum(taus), full_matrices=False)
    return s.mean() * u @ vt


def iso_cts(taus, fraction):
    rank, tasks = min(taus[0].shape), len(taus)
    specific = round((rank - int(rank * fraction)) / tasks) * tasks
    common, own = rank - specific, specific // tasks
    u, s, vt = np.linalg.svd(sum(taus), full_matrices=False)
    us, ss, vts = [], [], []
    for tau in taus:
        ut, st, vtt = np.linalg.svd(tau - u[:, :common] @ u[:, :common].T @ tau, full_matrices=False)
        us.append(ut[:, :own]), ss.append(st[:own]), vts.append(vtt[:own])
    left = procrustes(np.concatenate([*us, u[:, :common]], axis=1))
    right = procrustes(np.concatenate([*vts, vt[:common]]))
    return np.concatenate([*ss, s[:common]]).mean() * left @ right


def least_interference(weighting, targets, squares, start, damping):
    """The stacked least-squares problem of WUDI and OptMerge, without normal equations."""
    rows = [basis / np.sqrt(square) for basis, square in zip(weighting, squares, strict=True)]
    mean = sum(np.square(row).sum() for row in rows) / rows[0].shape[1]
    design = np.concatenate([*rows, np.sqrt(damping * mean) * np.eye(rows[0].shape[1])])
    wanted = [row @ target.T for row, target in zip(rows, targets, strict=True)]
    return np.linalg.lstsq(design, np.concatenate([*wanted, np.sqrt(damping * mean) * start.T]), rcond=None)[0].T


def wudi(taus, damping, start):
    squares = [np.linalg.norm(tau, "fro") ** 2 for tau in taus]
    begin = sum(taus) if start == "sum" else np.mean(taus, axis=0)
    return least_interference(taus, taus, squares, begin, damping)


def optmerge(taus, damping, start):
    count, mean = min(taus[0].shape) // len(taus), np.mean(taus, axis=0)
    parts, rest = [[np.linalg.svd(x, full_matrices=False) for x in y] for y in (taus, [tau - mean for tau in taus])]
    weighting = [np.diag(s[:count]) @ vt[:count] for _, s, vt in parts]
    targets = [mean + u[:, :count] @ np.diag(s[:count]) @ vt[:count] for u, s, vt in rest]
    squares = [np.linalg.norm(tau, "fro") ** 2 for tau in taus]
    return least_interference(weighting, targets, squares, sum(taus) if start == "sum" else mean, damping)


def model_stock(taus):
    flat = [tau.ravel() for tau in taus]
    count = len(flat)
    cosines = [
        flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j]) for i in range(count) for j in range(i)
    ]
    cosine = np.mean(cosines)
    return count * cosine / (1 + (count - 1) * cosine) * sum(taus) / count


def fisher(thetas, weights, fishers):
    strengths = [weight * information for weight, information in zip(weights, fishers, strict=True)]
    return sum(s * theta for s, theta in zip(strengths, thetas, strict=True)) / sum(strengths)


def ota_ffg(taus, moments, thresholds):
    """Grafts by saliency, then averages by √v what is left (arXiv:2509.11167), entry by entry; thresholds are of v τ²."""
    merged = np.zeros_like(taus[0])
    for place in np.ndindex(merged.shape):
        kept = [k for k, tau in enumerate(taus) if moments[k][place] * tau[place] ** 2 >= thresholds[k]]
        if kept:
            strengths = [np.sqrt(moments[k][place]) for k in kept]
            merged[place] = np.average([taus[k][place] for k in kept], weights=strengths)
    return merged


def regmean(weights, kernels, grams, alpha):
    """The closed form of RegMean (Jin et al., Eq. 2) for kernels [in, out], with off-diagonals multiplied by alpha."""
    scaled = [
        w * np.where(np.eye(len(gram), dtype=bool), gram, alpha * gram) for w, gram in zip(weights, grams, strict=True)
    ]
    return np.linalg.inv(sum(scaled)) @ sum(gram @ kernel for gram, kernel in zip(scaled, kernels, strict=True))
