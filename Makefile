# Everything goes through .venv; `uv` is installed into it by pip for speed.
PYTHON ?= python3
AT_ONCE ?= 2
CONSTRAINTS ?=
BIN := .venv/bin
STAMP := .venv/.batchscale-ready

# Certificates that the machine trusts, as pip does: behind a proxy uv's own are not enough.
export UV_SYSTEM_CERTS ?= 1

# Where this is set, every process compiles all of torch anew: 2 to 6 s each.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = $(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist worksteal --durations 20

.PHONY: setup demo test test-slow lint types bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "batchscale needs Python >= 3.11: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python $(CONSTRAINTS) --editable ".[peers,detection,dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/batchscale demo

test: setup
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check src tests examples benchmarks tools
	$(BIN)/ruff format --check src tests examples benchmarks tools

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/batchscale bench step
	$(BIN)/batchscale bench data --seconds 60
	$(BIN)/batchscale bench allreduce --seconds 60

docs: setup
	$(BIN)/mkdocs build --strict --site-dir build/docs

clean:
	rm -rf .venv build
