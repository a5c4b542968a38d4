PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= digits

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate \
  --custom-compile-command "make lock"
OURS := pyproject.toml --group build --python-version 3.11

.PHONY: demo test lint format lock versions clean

demo: $(VENV)/.installed
	$(BIN)/softedge deploy $(if $(filter digits,$(DATA)),--out runs/demo,--data "$(DATA)")
	@echo "to run softedge on your own images: source $(BIN)/activate"

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "softedge needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# Exactly the versions of the lock files, each file checked by its hash: what worked here works there. `make lock` renews
# them, `make versions` tries the newest and the lowest versions that pyproject.toml allows.
$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/bin/python
	@echo "installing PyTorch and what else is in requirements.lock into $(VENV): several GB, minutes without a line"
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml requirements.lock requirements-test.lock | $(VENV)/bin/python
	@echo "installing what is in requirements-test.lock into $(VENV): several GB, minutes without a line"
	$(PIP) install --require-hashes --requirement requirements-test.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/.installed

lock: $(VENV)/bin/python
	$(PIP) install uv
	$(LOCK) $(OURS) --output-file requirements.lock
	$(LOCK) $(OURS) --extra test --extra android --constraint requirements.lock --output-file requirements-test.lock
	$(BIN)/python .ci/lock.py
	$(LOCK) --no-deps --group board --python-version 3.8 --only-binary :all: --output-file softedge/bench/ssh/wheels.lock

versions: $(VENV)/.installed-test
	$(BIN)/python .ci/versions.py

clean:
	rm -rf $(VENV) .venv-newest .venv-lowest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
