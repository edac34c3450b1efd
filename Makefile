# make demo: a real LIBERO episode judged by a critic.   make test: all tests that need no GPU and no trainer.
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
JOBS ?= 2
export VENV

.PHONY: demo test lint test-slow test-gpu test-trainer test-verl compare-engines setup-demo setup-test clean

setup-demo:
	@python3 scripts/check_gl.py
	@scripts/setup_venv.sh demo --with-torch

setup-test:
	@python3 scripts/check_gl.py
	@scripts/setup_venv.sh dev --with-torch

demo: setup-demo
	@$(BIN)/python scripts/demo.py --out $(OUT)

test: setup-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: setup-test
	$(BIN)/python -m pytest -m slow $(ARGS)

test-gpu: setup-test
	$(BIN)/python -m pytest -m gpu $(ARGS)

test-trainer: setup-test
	$(BIN)/python -m pytest -m trainer $(ARGS)

test-verl:
	@python3 scripts/check_gl.py
	scripts/test_verl.sh

compare-engines:
	scripts/compare_engines.sh .venv-engines

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
