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

.PHONY: setup frameworks demo test test-slow lint types bench wheels nets docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "batchscale needs Python >= 3.11: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python $(CONSTRAINTS) --editable ".[peers,detection,dev]"
	touch $(STAMP)

# Environments of other frameworks, for `bench frameworks`; one that cannot be made leaves the others to be made.
frameworks: setup
	@failed=0; for list in tools/frameworks/*.txt; do \
		name=$$(basename $$list .txt); place=build/frameworks/$$name; echo "$$name: $$place"; \
		$(BIN)/python -m uv venv --quiet --clear --python $(BIN)/python $$place && \
		$(BIN)/python -m uv pip install --quiet --no-deps --python $$place/bin/python --requirement $$list || \
		{ failed=1; rm -rf $$place; echo "$$name: not made; see above: versions in $$list may not fit $$($(BIN)/python --version)"; }; \
	done; exit $$failed

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

# What a GPU machine without a package index may lack, for its Python: benchmarks/gpu.sh installs what lies in .whl.
LACKING ?= annotated-types greenlet pydantic pydantic-core simplejpeg typing-inspection
GPU_PYTHON ?= 3.12

wheels: setup
	rm -rf .whl
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest .whl \
		--python-version $(GPU_PYTHON) --implementation cp $(foreach glibc,2_28 2_27 2_24 2_17 2_5 2_1,--platform manylinux_$(glibc)_x86_64) \
		--platform manylinux2014_x86_64 --constraint constraints.txt $(LACKING)

nets: setup
	$(BIN)/python tools/nets.py

docs: setup
	$(BIN)/mkdocs build --strict --site-dir build/docs

clean:
	rm -rf .venv build
