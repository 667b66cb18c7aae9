# Two environments, made once and then only when what they hold changes: .venv for the SDK and the work on it,
# .venv-triton for the server, whose NumPy must stay below 2. `make` alone lists the targets.

# Triton's Python backend exists for these versions; `make PYTHON=/path/to/python3.12 …` chooses another interpreter.
SUPPORTED := (3, 11) <= sys.version_info < (3, 14)
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not $(SUPPORTED))' 2>/dev/null && echo $$python && break; done)
TRITON_PACKAGES := nvidia-pytriton==0.7.0 'onnxruntime>=1.22,<2' 'numpy<2'

# Extra words for pytest: make test ARGS="-k guard -x"
ARGS ?=

# Tests run in as many processes as there are cores, four at most, each with one thread for torch; a file stays in one.
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test dev check format triton clean distclean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.demo .venv-triton/.ready  ## Run everything once: a real server, a picture, a video, demo.png
	@echo "==> Running the demo"
	@.venv/bin/python examples/demo.py

test: .venv/.dev .venv-triton/.ready  ## Run all tests
	@echo "==> Running the tests"
	@$(PYTEST) $(ARGS)

dev: .venv/.dev  ## Create the environment for training, tests and tools; then: source .venv/bin/activate
	@echo "==> .venv is ready: source .venv/bin/activate"

check: .venv/.dev  ## Check format, lint, types and the direction of imports
	@echo "==> ruff format" && .venv/bin/ruff format --check
	@echo "==> ruff check" && .venv/bin/ruff check
	@echo "==> mypy" && .venv/bin/mypy
	@echo "==> lint-imports" && .venv/bin/lint-imports

format: .venv/.dev  ## Format, and mend what ruff can mend
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

triton: .venv-triton/.ready  ## Create the server's environment
	@echo "==> .venv-triton is ready"

clean:  ## Remove what tests, checks and the demo left
	@echo "==> Removing caches and outputs"
	@rm -rf build dist demo.png .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean  ## Remove both environments too
	@echo "==> Removing .venv and .venv-triton"
	@rm -rf .venv .venv-triton sdk/*.egg-info

# $(call create_venv,FOLDER)
define create_venv
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(not $(SUPPORTED))' || { \
		echo "make: expected Python 3.11, 3.12 or 3.13, got $(or $(PYTHON),none of them)." >&2; \
		echo "      On Debian and Ubuntu: sudo apt install python3.11 python3.11-venv" >&2; \
		echo "      Or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "make: $(PYTHON) cannot create virtual environments." >&2; \
		echo "      On Debian and Ubuntu: sudo apt install python$$version-venv" >&2; exit 1; }
	@echo "==> Creating $(1) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(1)
	@touch $(1)/.created
endef

define check_opencv
	@.venv/bin/python -c 'import cv2' || { \
		echo "make: OpenCV misses a library of the system, named above." >&2; \
		echo "      On Debian and Ubuntu: sudo apt install libgl1 libglib2.0-0 libxcb1" >&2; exit 1; }
endef

.venv/.created:
	$(call create_venv,.venv)

.venv/.demo: setup.cfg pyproject.toml | .venv/.created
	@echo "==> Installing the SDK into .venv (no torch)"
	@.venv/bin/python -m pip install --editable '.[demo]'
	$(check_opencv)
	@touch $@

# What the demo needs is part of it, hence both stamps.
.venv/.dev: setup.cfg pyproject.toml | .venv/.created
	@echo "==> Installing the SDK, training and the tools into .venv (with torch; this takes minutes)"
	@.venv/bin/python -m pip install --editable '.[dev]'
	$(check_opencv)
	@touch .venv/.demo $@

.venv-triton/.created:
	$(call create_venv,.venv-triton)

.venv-triton/.ready: Makefile | .venv-triton/.created
	@.venv-triton/bin/python -c 'import ctypes, sys; ctypes.CDLL("libpython%d.%d.so.1.0" % sys.version_info[:2])' || { \
		version=$$(.venv-triton/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "make: Triton's Python backend needs the shared library of Python $$version." >&2; \
		echo "      On Debian and Ubuntu: sudo apt install libpython$$version" >&2; exit 1; }
	@echo "==> Installing Triton into .venv-triton"
	@.venv-triton/bin/python -m pip install $(TRITON_PACKAGES)
	@touch $@
