# `make help` says what there is. The environment is .venv here; PYTHON chooses the interpreter it is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help demo study test lint bench clean

help: ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## train classifier, stage 1, stage 2, adversarial on digits, evaluate, write the report (minutes)
	$(BIN)/python train.py -m stage=classifier,1,2,adversarial data=digits overwrite=true
	$(BIN)/python evaluate.py data=digits trainer=ddp_cpu images=120 'threat.white_box.routes=[exact,identity]'

study: $(READY) ## all five analyses on digits, on the weights that come with the project (ten minutes)
	$(BIN)/python analyse.py study=[gradients,relations,linearity,directions,regions] weights=checkpoints/released/digits

test: $(READY) ## run the tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY) ## check style and the arrows between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: $(READY) ## measure attacks against other libraries (installs the extra `bench`)
	$(BIN)/pip install -q -c constraints.txt -e .[bench]
	$(BIN)/python benchmarks/attacks.py

clean: ## remove the environment; runs and results stay
	rm -rf $(VENV)

$(READY): setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python %d.%d: 3.11 to 3.13 is needed; make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .[dev]
	$(BIN)/python -m s2snet.doctor
	touch $(READY)
