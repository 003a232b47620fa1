# `make help` lists the targets. They use .venv in this folder; PYTHON selects the interpreter that creates it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help demo study test lint bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## train all stages on digits, evaluate them and write the report (minutes)
	$(BIN)/python train.py -m stage=classifier,1,2,adversarial data=digits overwrite=true
	$(BIN)/python evaluate.py data=digits trainer=ddp_cpu images=120 'threat.white_box.routes=[exact,identity]'

study: $(READY) ## run all studies on digits, with the released weights (ten minutes)
	$(BIN)/python analyse.py weights=checkpoints/released/digits \
		study=[$$($(BIN)/python -c 'from s2snet.analysis import STUDIES; print(*STUDIES, sep=",")')]

test: $(READY) ## run the tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY) ## check style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench: $(READY) ## compare the speed of attacks with other libraries (installs the extra `bench`)
	$(BIN)/pip install -q -c constraints.txt -e .[bench]
	$(BIN)/python benchmarks/attacks.py

clean: ## remove the environment, but not runs and results
	rm -rf $(VENV)

$(READY): setup.py setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python %d.%d: 3.11 to 3.13 is needed; make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .[dev]
	$(BIN)/python -m s2snet.doctor
	touch $(READY)
