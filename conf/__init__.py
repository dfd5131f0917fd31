"""Hydra configuration: data, no logic. `python run.py --help` lists every group and what can be set."""
