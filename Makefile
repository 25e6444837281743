# `make demo` and `make test` do all the set-up themselves; the README gives the plain commands.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint audit clean

.venv/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt
# A server without a screen lacks libGL, which opencv-python loads: the headless build needs none.
	$(BIN)/python -c 'import cv2' 2>/dev/null || \
		$(BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	touch $@

demo: .venv/ready
	$(BIN)/python tools/demo.py $(DEMO)

test: .venv/ready lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known holes in what is installed. --strict: a package that cannot be looked up is a failure too,
# not a pass; AUDIT="--ignore-vuln ID" and the like add to it.
audit: .venv/ready
	$(BIN)/python -m pip_audit --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q pip-audit
	$(BIN)/python -m pip_audit --local --strict --progress-spinner off $(AUDIT)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
