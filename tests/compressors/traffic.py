"""The counter that the benchmark of compressors counts with too."""

from experiments.traffic import Traffic

__all__ = ["Traffic"]
