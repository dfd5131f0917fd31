"""What `run.py` runs: one file per task, and what tasks share."""
