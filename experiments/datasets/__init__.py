"""Data sets of `task=evaluate`: questions about videos with right answers. `data=NAME` is the module of that name."""

from __future__ import annotations

import importlib

from omegaconf import DictConfig

from compressors.errors import InputError
from experiments.datasets.sample import Dataset, Sample

NAMES = ("micro", "manifest", "micro_stream", "ovobench", "streamingbench")


def dataset_from(data: DictConfig) -> Dataset:
    """The data set that the group `data` describes, checked as a whole before anything runs.

    Raises:
        InputError: there is none, or something in it is wrong.
    """
    if data.name not in NAMES:
        raise InputError(f"data={data.name}: this task needs questions; write data={' or data='.join(NAMES)}.")
    dataset: Dataset = importlib.import_module(f"experiments.datasets.{data.name}").load(data)
    return dataset


__all__ = ["Dataset", "Sample", "dataset_from"]
