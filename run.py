"""vidpress on the command line: `python run.py`, or `vidpress` once installed. `--help` lists what it can do."""

from __future__ import annotations

import os
import sys

import hydra
from omegaconf import DictConfig

from experiments import command_line


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def job(cfg: DictConfig) -> None:
    """One job: a single run, or one point of a sweep."""
    command_line.run_job(cfg)


def main() -> None:
    """Entry point of the console script."""
    command_line.call(job)


if __name__ == "__main__":
    # Jobs of a sweep may start in new processes: they find the code where this script has found it.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (sys.path[0], os.environ.get("PYTHONPATH"))))
    main()
