# Everything runs in .venv, created by `make setup`. With an NVIDIA driver, the extra for its CUDA version is installed.
PYTHON ?= python3
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p')
EXTRA ?= $(if $(CUDA),$(if $(filter 12,$(CUDA)),cuda12,cuda13),cpu)
FOLDER ?= runs/gpu
STAMP := .venv/installed-$(EXTRA)
BIN := .venv/bin

.PHONY: setup demo test check docs kernels gpu faults clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),evaluation,export,explore,hub,test,docs]'
ifneq ($(EXTRA),cpu)
	$(BIN)/python -c 'import torch; torch.cuda.is_available() or print(f"warning: PyTorch {torch.__version__} sees no GPU; docs/install.md says what to do")'
endif
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

kernels: setup
	$(BIN)/python -m benchmarks.compile_report

gpu: setup
	$(BIN)/python -m benchmarks.gpu $(FOLDER)

faults: setup
	$(BIN)/python -m tests.faults.campaign

clean:
	rm -rf .venv build *.egg-info
