"""Centring and projection of sentence vectors, learned from a publisher's own articles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.manifest import Projection

LEAST_TEXTS = 500
MOST_TEXTS = 20_000  # a sample of a larger corpus gives the same axes

_NEIGHBOURS = 10
_ASKED = 1000  # texts whose neighbours are compared


@dataclass(frozen=True)
class LearnedProjection:
    """``mean`` float32 [width]; ``components`` float32 [dims, width], orthonormal rows, widest first."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    learned_from: int
    variance_kept: float
    neighbours_kept: float

    @property
    def summary(self) -> Projection:
        """Return what the manifest says of it."""
        return Projection(
            dims=len(self.components),
            learned_from=self.learned_from,
            variance_kept=round(self.variance_kept, 6),
            neighbours_kept=round(self.neighbours_kept, 6),
        )

    @property
    def rows(self) -> NDArray[np.float32]:
        """Float32 [1 + dims, width]: the mean, then the components; what projection.npy holds."""
        return np.vstack([self.mean, self.components])


def learn_projection(vectors: NDArray[np.float32], dims: int) -> LearnedProjection:
    """Learn mean and leading principal axes from ``vectors`` [n, width], n >= dims, without whitening.

    An axis points to where its largest entry is positive, so that the same vectors always give the same axes.
    """
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(exact))
    components = axes[:, ::-1].T[:dims]
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(dims), largest])[:, None]
    rows = np.vstack([mean, components]).astype(np.float32)
    return LearnedProjection(
        mean=rows[0],
        components=rows[1:],
        learned_from=len(vectors),
        variance_kept=float(variances[::-1][:dims].sum() / variances.sum()),
        neighbours_kept=neighbours_kept(vectors, project(vectors, rows)),
    )


def project(vectors: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply ``rows`` (see :attr:`LearnedProjection.rows`) to [n, width]; returns unit rows, float32 [n, dims]."""
    projected = (vectors.astype(np.float64) - rows[0]) @ rows[1:].T.astype(np.float64)
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    return np.asarray(projected / np.maximum(lengths, 1e-12), dtype=np.float32)


def neighbours_kept(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return which share of the ten nearest by cosine before are among the ten nearest after.

    ``before`` [n, width] and ``after`` [n, dims] are of the same n > 10 texts; up to 1,000 of them are asked for.
    """
    asked = np.unique(np.linspace(0, len(before) - 1, _ASKED).astype(int))
    shares = []
    for some in np.array_split(asked, max(1, len(asked) // 100)):
        pairs = zip(_nearest(before, some), _nearest(after, some), strict=True)
        shares += [len(np.intersect1d(a, b)) / _NEIGHBOURS for a, b in pairs]
    return float(np.mean(shares))


def _nearest(vectors: NDArray[np.float32], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = units[asked] @ units.T
    cosines[np.arange(len(asked)), asked] = -np.inf
    return np.argpartition(-cosines, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
