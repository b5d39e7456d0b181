# wenmai: `make demo` sets up and does the main job; `make test` checks it all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WENMAI := $(BIN)/wenmai
EXTRAS := dev,e5,samples,fonts,chinese,corpus,optimizers,tune,adapters
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint format bench clean

setup: $(READY)

# torch first and by its exact version: any other way of asking may bring gigabytes of CUDA
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("wenmai needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $(READY)

demo: setup
	$(WENMAI) train recipes/demo.yaml --overwrite
	$(WENMAI) predict runs/demo examples/sentences.txt
	$(WENMAI) report runs/demo

test: setup
	$(BIN)/python -m pytest -n auto

test-all: setup
	$(BIN)/python -m pytest -m ""

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/correctness.py --quick
	$(BIN)/python benchmarks/train_throughput.py --quick
	$(BIN)/python benchmarks/adversarial.py --quick
	$(BIN)/python benchmarks/corpora.py --quick
	$(BIN)/python benchmarks/large_file.py --quick
	$(BIN)/python benchmarks/corpus.py --quick
	$(BIN)/python benchmarks/producers.py --quick
	$(BIN)/python benchmarks/language_models.py --quick
	$(BIN)/python benchmarks/long_documents.py --quick
	$(BIN)/python benchmarks/encoder.py --quick
	$(BIN)/python benchmarks/tasks.py --quick
	$(BIN)/python benchmarks/task_peers.py --quick
	$(BIN)/python benchmarks/few_labels.py --quick

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
