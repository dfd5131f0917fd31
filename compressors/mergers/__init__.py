"""Mergers: what each kept row is a weighted sum of."""

from compressors.mergers.average_pool import AveragePool
from compressors.mergers.nearest_kept import NearestKept

__all__ = ["AveragePool", "NearestKept"]
