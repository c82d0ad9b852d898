"""Quadratic forms of labelings: the leave-one-out error of kernel regression, and descent to minima by swaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelings = NDArray[np.bool_]
SWAPS_AT_ONCE = 2_000_000  # numbers in an array of swaps: 16 MB


def leave_one_out_form(kernel: Array, ridge: float) -> Array:
    """(N, N) M with y'My the summed squared leave-one-out error of kernel ridge regression on labels y.

    With A = (K + ridge I)^-1 the residual of image i, predicted from all others, is (A y)_i / A_ii, so
    M = A diag(A)^-2 A (Bachmann, Hofmann & Lucchi, ICLR 2022: the leave-one-out error in closed form).
    """
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    scaled = inverse / inverse.diagonal()[:, None]
    form: Array = scaled.T @ scaled
    return form


def centred(labels: Labelings) -> Array:
    """(B, N) z = y - P/N."""
    result: Array = labels - labels.mean(axis=1, keepdims=True)
    return result


def form_values(form: Array, labels: Labelings) -> Array:
    """(B,) z'Mz of (B, N) labelings, with z = y - P/N."""
    z = centred(labels)
    result: Array = ((z @ form) * z).sum(axis=1)
    return result


def draw_labelings(rng: np.random.Generator, count: int, n_images: int, n_positives: int) -> Labelings:
    """(count, N) uniform labelings with P positives each."""
    order = rng.permuted(np.tile(np.arange(n_images), (count, 1)), axis=1)
    return order < n_positives


def neighbours(labels: Labelings, exchanges: int, rng: np.random.Generator) -> Labelings:
    """(B, N) labelings, each with so many (or all there are) of its positives exchanged with negatives."""
    result = labels.copy()
    for row, old in zip(result, labels, strict=True):
        positives, negatives = np.flatnonzero(old), np.flatnonzero(~old)
        exchanged = min(exchanges, len(positives), len(negatives))
        row[rng.choice(positives, exchanged, replace=False)] = False
        row[rng.choice(negatives, exchanged, replace=False)] = True
    return result


def minima(forms: Sequence[Array], starts: Labelings, most: int) -> Labelings:
    """(at most `most`, N) distinct minima that descent reaches from the (B, N) starts.

    The lowest of each form come first, then the second lowest of each, and so on.
    """
    ranked = []
    for form in forms:
        found = np.unique(descend(form, starts), axis=0)
        ranked.append(found[np.argsort(form_values(form, found), kind="stable")])
    distinct: dict[bytes, Labelings] = {}
    for rank in range(max(map(len, ranked))):
        for found in ranked:
            if rank < len(found):
                distinct.setdefault(found[rank].tobytes(), found[rank])
    return np.array(list(distinct.values())[:most])


def descend(form: Array, labels: Labelings, others: Labelings | None = None, most: int = 0) -> Labelings:
    """(B, N) labelings at which no exchange of a positive with a negative lowers z'Mz, each reached from a given one.

    Every step makes the best exchange of each labeling.

    Args:
        others: (B, M, N) labelings from which each keeps a distance: no exchange raises the number of positives shared
            with one of its M above `most`. Where more are shared at the start, that may stay, but not grow.
    """
    positives = int(labels[0].sum())
    block = max(1, SWAPS_AT_ONCE // max(1, positives * (labels.shape[1] - positives)))
    parts = [slice(i, i + block) for i in range(0, len(labels), block)]
    return np.concatenate([_descend_block(form, labels[i], None if others is None else others[i], most) for i in parts])


def _descend_block(form: Array, labels: Labelings, others: Labelings | None, most: int) -> Labelings:
    labels = labels.copy()
    if labels.all() or not labels.any():
        return labels
    slopes = 2 * centred(labels) @ form
    tolerance = 1e-9 * (1e-9 + np.abs(form).max())  # a swap and its way back must not both look like gains
    moving = np.arange(len(labels))
    while len(moving):
        near = None if others is None else others[moving]
        leaving, coming, change = _best_swaps(form, labels[moving], slopes[moving], near, most)
        better = change < -tolerance
        moving, leaving, coming = moving[better], leaving[better], coming[better]
        labels[moving, leaving], labels[moving, coming] = False, True
        slopes[moving] += 2 * (form[coming] - form[leaving])
    return labels


def _best_swaps(
    form: Array, labels: Labelings, slopes: Array, others: Labelings | None, most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """For each labeling the positive and the negative to exchange, and by how much z'Mz changes."""
    count = len(labels)
    positives = np.nonzero(labels)[1].reshape(count, -1)
    negatives = np.nonzero(~labels)[1].reshape(count, -1)
    own = form.diagonal()
    change = -2 * form[positives[:, :, None], negatives[:, None, :]]
    change += (own[positives] - np.take_along_axis(slopes, positives, axis=1))[:, :, None]
    change += (own[negatives] + np.take_along_axis(slopes, negatives, axis=1))[:, None, :]
    if others is not None:
        # With those that share all they may, no negative of the labeling may come for a positive that they lack.
        tight = (others & labels[:, None]).sum(axis=2, keepdims=True) >= most
        lacked = tight & ~np.take_along_axis(others, positives[:, None], axis=2)
        brought = np.take_along_axis(others, negatives[:, None], axis=2)
        closed = lacked.transpose(0, 2, 1).astype(np.float32) @ brought.astype(np.float32)
        change[closed > 0] = np.inf
    best = change.reshape(count, -1).argmin(axis=1)
    row, column = np.divmod(best, negatives.shape[1])
    each = np.arange(count)
    return positives[each, row], negatives[each, column], change[each, row, column]
