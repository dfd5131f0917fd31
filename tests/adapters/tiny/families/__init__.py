"""One file per family; each has `FAMILIES`, a tuple of `Family` objects (one for every setting that is tested)."""
