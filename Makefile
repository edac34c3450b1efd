# make demo: a real LIBERO episode judged by a critic.   make test: all tests that need no GPU and no trainer.
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
JOBS ?= 2
TRAIN_DEMO := --tasks reach:0 --cameras agentview --image-size 16 --step-limit 16 --chunk-size 4 --in-process --device cpu \
  --critic oracle --reward-preset dense --num-envs 32 --minibatch-size 64 --iterations 60 --value-init-steps 1 --value-clip 0.2 --gamma 0.9 \
  --learn all --learning-rate 3e-4 --log-std -0.5 --kl-stop 2 --eval-every 10 --eval-episodes 25
export VENV

.PHONY: demo train-demo test lint test-slow test-gpu test-trainer test-verl compare-engines setup-demo setup-test clean

setup-demo:
	@python3 scripts/check_gl.py
	@scripts/setup_venv.sh demo --with-torch

setup-test:
	@python3 scripts/check_gl.py
	@scripts/setup_venv.sh dev --with-torch

demo: setup-demo
	@$(BIN)/python scripts/demo.py --out $(OUT)

# A toy without physics and a critic that reads the simulator: shows the training loop at work in minutes, nothing about robots.
train-demo: setup-demo
	@$(BIN)/python examples/train_ppo.py --out $(if $(filter file,$(origin OUT)),runs/train-demo,$(OUT)) $(TRAIN_DEMO) $(ARGS)

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
