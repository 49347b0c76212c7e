# Each target is one command; ARGS adds to it: make train ARGS="data=wine optimizer.lr=0.01"
PYTHON ?= python3
RUN := .venv/bin/python
ARGS ?=
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

install: .venv/installed  ## set up .venv with the pinned versions; does nothing when nothing changed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch .venv/installed

train: install  ## train the default run, or what ARGS says
	@$(RUN) -m classify.train $(ARGS)

strong: install  ## the mean of eight nets, better and slower: make strong ARGS="data=csv data.path=... data.target=..."
	@$(RUN) -m classify.train experiment=strong $(ARGS)

sweep: install  ## sweep over the learning rate
	@$(RUN) -m classify.train experiment=learning_rates $(ARGS)

cv: install  ## validate on each of five folds
	@$(RUN) -m classify.train -m data.num_folds=5 "data.fold=range(5)" $(ARGS)

lr: install  ## which learning rate: 64 of them over a few epochs, and the one to take
	@$(RUN) -m classify.train debug=lr_range $(ARGS)

test: install  ## run the tests, in two minutes (ARGS="-m slow": the long ones)
	@$(RUN) -m pytest $(ARGS)

kill-test: install  ## kill training at random moments and compare (ARGS="--runs 10 --sweeps 2")
	@$(RUN) scripts/kill_test.py $(ARGS)

bench: install  ## time training beside a bare loop, the usual Lightning, skorch and scikit-learn
	@$(RUN) scripts/benchmark.py $(ARGS)

accuracy: install  ## compare how well runs predict with boosting and others, on tables (ARGS=FOLDER)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[rivals]'
	@$(RUN) scripts/benchmark.py accuracy $(ARGS)

lint: install  ## check style and types
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy

format: install  ## mend what style checks can mend
	@$(RUN) -m ruff check --fix . && $(RUN) -m ruff format .

rename: install  ## make it yours: make rename NAME=churn
	@$(RUN) scripts/rename.py "$(NAME)"

.PHONY: help install train strong sweep cv lr test kill-test bench accuracy lint format rename
