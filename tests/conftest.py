"""One thread per process: the tests' tensors are tiny, and threads that wait for each other only cost time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it
