# Everything this project can do, from a clone with Python 3.11+, git and make.
#   make book PYTHON=python3.13 VENV=.venv313    another interpreter, another environment
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# One BLAS thread: with more, small networks run slower, not faster, on shared cores.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export CHAINER_WARN_VERSION_MISMATCH = 0

READY := $(VENV)/.ready

.PHONY: book test notebooks serve lab bench labs lint lock gpu gpu-check clean

book: $(READY)
	$(BIN)/python book/_tools/build.py

test: $(READY)
	$(BIN)/python tests/run.py

notebooks: $(READY)
	$(BIN)/python book/_tools/notebooks.py

labs: $(READY)
	$(BIN)/convnets labs build

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

# JupyterLab shows scripts of trusted notebooks only: so the stored figures are alive at once.
lab: $(READY)
	$(BIN)/jupyter trust book/*.ipynb book/*/*.ipynb labs/*/*.ipynb >/dev/null
	$(BIN)/jupyter lab --notebook-dir .

bench: $(READY)
	$(BIN)/python -m tests.bench

# CuPy, CUDA and cuDNN, some gigabytes, beside what the lock has; for Linux with an NVIDIA GPU.
gpu: $(VENV)/.gpu

# Checks and times on the GPU in under ten minutes; the chapter about GPUs shows what it records.
# Where the time ends first: make gpu-check FLAGS=--resume
gpu-check: $(VENV)/.gpu
	$(BIN)/python -m tests.bench.gpu --record book/results/gpu.json $(FLAGS)

$(VENV)/.gpu: $(READY)
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e 'lib[gpu]'
	touch $@

lint: $(READY)
	$(BIN)/ruff check .

# Refreshes requirements.txt: one lock for Python 3.11 and newer, from these extras of lib/pyproject.toml.
LOCKED := chainer onednn convnets book live test
lock:
	echo 'setuptools<81' >.lock-bounds
	$(PYTHON) -m venv --clear .lock-env && .lock-env/bin/pip install -q uv
	.lock-env/bin/uv pip compile lib/pyproject.toml $(LOCKED:%=--extra %) --universal --python-version 3.11 \
	  --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
	  --build-constraints .lock-bounds --constraints .lock-bounds \
	  --custom-compile-command "make lock" --output-file requirements.txt
	rm -rf .lock-env .lock-bounds

clean:
	rm -rf _build $(VENV) runs .pytest_cache .ruff_cache

# Chainer is a source archive whose setup script imports pkg_resources: it builds without isolation,
# beside a setuptools that still has that module, so those tools go in first.
$(READY): requirements.txt lib/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^setuptools==/,/# via/p; /^wheel==/,/# via/p; /^packaging==/,/# via/p' requirements.txt >$(VENV)/build-tools.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/build-tools.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes --no-build-isolation -r requirements.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e lib
	touch $@
