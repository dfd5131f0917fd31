# Every target sets up what it needs, on a fresh clone too; a second call starts at once.
# Elsewhere than on Linux with a GPU, torch's small CPU build is enough:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
JOBS ?= auto
VENV := .venv
OLDEST := .venv-oldest
NEWEST := .venv-newest
PROCESSORS := .venv-processors
BIN := $(VENV)/bin
TRITON := triton==3.9.0# its interpreter tests the kernels; GPU builds of torch bring their own
# Tests work on tiny tensors: one thread each is several times faster than threads that wait for one another.
PYTEST := -m pytest -q -n $(JOBS) --maxprocesses=8
test test-all test-oldest test-newest: export OMP_NUM_THREADS := 1

.PHONY: demo test test-all test-oldest test-newest lint format conf setup clean

demo: setup ## answer a question about the embedded clip, without and with compression
	$(BIN)/python run.py

test: setup $(VENV)/.kernels $(PROCESSORS)/.stamp ## everything that takes seconds
	$(BIN)/python $(PYTEST) -m "not slow"

test-all: setup $(VENV)/.kernels $(PROCESSORS)/.stamp ## the slow tests too
	$(BIN)/python $(PYTEST)

test-oldest: $(OLDEST)/.stamp $(PROCESSORS)/.stamp ## the models' contract with the oldest supported transformers
	$(OLDEST)/bin/python $(PYTEST) -m "not slow" tests/adapters

test-newest: $(NEWEST)/.stamp ## what the adapters rely on, and the models' short contract, with the newest transformers
	$(NEWEST)/bin/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) --upgrade transformers
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check | grep -E '^(transformers|torch|huggingface.hub|tokenizers) '
	$(NEWEST)/bin/python $(PYTEST) -m "not slow" tests/adapters/test_attachment_points.py tests/adapters/test_support.py

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## rewrite the code in the common style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

conf: setup ## write the YAML of parts and presets from the Python list
	$(BIN)/python -m experiments.presets

setup: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "vidpress needs Python 3.11 or newer: make PYTHON=python3.11"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.kernels: $(VENV)/.stamp
	test "$$(uname)" != Linux || $(BIN)/python -c 'import triton' 2>/dev/null || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps $(TRITON)
	touch $@

# The processors' packages: see tests/extras.py. Nothing that they need is missing from the environments.
$(PROCESSORS)/.stamp: $(VENV)/.stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt \
		--no-deps --upgrade --target $(PROCESSORS) torchvision num2words timm
	touch $@

$(NEWEST)/.stamp: pyproject.toml constraints.txt
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

$(OLDEST)/.stamp: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install -q --disable-pip-version-check $(PIP_FLAGS) -c constraints-oldest.txt -e '.[dev]'
	touch $@

clean: ## remove environments and caches
	rm -rf $(VENV) $(OLDEST) $(NEWEST) $(PROCESSORS) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
