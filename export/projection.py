"""Centring and projection of sentence vectors, learned from a publisher's own articles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.manifest import Projection

LEAST_TEXTS = 500


@dataclass(frozen=True)
class LearnedProjection:
    """``mean`` float32 [width]; ``components`` float32 [dims, width], orthonormal rows, widest first."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    learned_from: int
    variance_kept: float

    @property
    def summary(self) -> Projection:
        """Return what the manifest says of it."""
        return Projection(
            dims=len(self.components),
            learned_from=self.learned_from,
            variance_kept=round(self.variance_kept, 6),
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
    return LearnedProjection(
        mean=mean.astype(np.float32),
        components=np.ascontiguousarray(components, dtype=np.float32),
        learned_from=len(vectors),
        variance_kept=float(variances[::-1][:dims].sum() / variances.sum()),
    )


def project(vectors: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply ``rows`` (see :attr:`LearnedProjection.rows`) to [n, width]; returns unit rows, float32 [n, dims]."""
    projected = (vectors.astype(np.float64) - rows[0]) @ rows[1:].T.astype(np.float64)
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    return np.asarray(projected / np.maximum(lengths, 1e-12), dtype=np.float32)
