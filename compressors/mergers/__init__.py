"""Mergers: what each kept row is a weighted sum of."""

from compressors.mergers.average_pool import AveragePool

__all__ = ["AveragePool"]
