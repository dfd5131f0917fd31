"""What `task=benchmark` is made of."""
