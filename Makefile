# Everything one does with dreamq. It needs make and Python 3.11 to 3.13; the first call sets up .venv.
# PYTHON=/path/to/python chooses another Python, PORT=8081 another port, ARGS="-k cancel" is handed to pytest.

PORT ?= 8080
# Test files that run side by side: many of them wait for a lease to run out, so more than a machine of two cores has.
TESTS_AT_ONCE ?= 3
# Where the driver shows a GPU, TensorFlow is installed with the CUDA libraries it needs (3 GB more).
REQUIREMENTS ?= $(if $(shell nvidia-smi -L 2>/dev/null),requirements-gpu.txt,requirements.txt)

setup = @PYTHON="$(PYTHON)" sh scripts/setup.sh $(REQUIREMENTS)
setup_dev = @PYTHON="$(PYTHON)" sh scripts/setup.sh $(REQUIREMENTS) requirements-dev.txt
python = .venv/bin/python

.PHONY: help setup demo serve test check format docs bench clean

help: ## list what make can do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r call does; do printf '%-12s %s\n' "$$call" "$$does"; done

setup: ## make .venv and install what dreamq runs on
	$(setup)

demo: ## run real jobs on real pictures and show where the results are
	$(setup)
	@$(python) -m workers.demo

serve: ## Redis, a worker and the API on 127.0.0.1:8080, until Ctrl-C
	$(setup)
	@$(python) -m workers.embedded --port $(PORT) $(ARGS)

test: ## the whole test suite, against a real Redis and real workers
	$(setup_dev)
	@$(python) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder $(ARGS)

check: ## linters, types, import rules
	$(setup_dev)
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@.venv/bin/lint-imports

format: ## lay the code out as `make check` wants it
	$(setup_dev)
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

docs: ## write docs/ and the tables of README.md anew from the code
	$(setup_dev)
	@$(python) -m scripts.write_docs

bench: ## the benchmarks, as ratios
	$(setup_dev)
	@$(python) -m tests.benchmarks $(ARGS)

clean: ## remove what make made, but no data: .venv and the tools' caches
	rm -rf .venv dreamq.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
