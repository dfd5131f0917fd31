"""vidpress on the command line: `python run.py`, or `vidpress` once installed. `--help` lists what it can do."""

from __future__ import annotations

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
    main()
