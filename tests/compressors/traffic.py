"""The counter that the benchmark of compressors counts with too."""

from experiments.traffic import Traffic, extent

__all__ = ["Traffic", "extent"]
