# Each target is one line that calls a script; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test test-map check map bundle train-phantom evaluate-phantom
.PHONY: bench-door bench-log bench-seg bench-shape

help: ## list the targets
	@sed -n 's/^\([a-z-]*\): ## /  make \1\t/p' Makefile | expand --tabs=28

demo: ## send a phantom study through the node and show the result; ORTHANC=1 delivers to Orthanc
	@deploy/setup $(if $(ORTHANC),--peers) && .venv/bin/python -m tests.demo $(if $(ORTHANC),--orthanc)

test: ## set up, run every check and every test
	@deploy/setup --tests --peers && tests/check

test-map: ## build the container, load its archive in an empty store and run it (Debian, as root)
	@deploy/setup --tests --peers --containers && .venv/bin/python -m pytest tests/map

check: ## format, lint and types only
	@deploy/setup --tests && tests/check static

map: ## pack it as a MONAI Application Package; deploy/map/build.py explains BASE, MODELS, CONFIG …
	@deploy/setup && .venv/bin/python -m deploy.map.build

bundle: ## collect release, packages, models and image in one file for a site without a network
	@deploy/setup && deploy/bundle

train-phantom: ## train the small network that ships with the code
	@deploy/setup && .venv/bin/python -m tests.phantoms train

evaluate-phantom: ## measure it on phantoms it has not seen
	@deploy/setup && .venv/bin/python -m tests.phantoms evaluate

bench-door: ## measure how fast slices come in, beside dcmtk's storescp and Orthanc
	@deploy/setup --tests --peers && .venv/bin/python -m tests.bench_door

bench-log: ## measure how long a job log of a million objects takes to answer
	@deploy/setup --tests && .venv/bin/python -m tests.bench_log

bench-shape: ## measure how long it takes to measure segments
	@deploy/setup --tests && .venv/bin/python -m tests.bench_shape

bench-seg: ## measure what encoding a segmentation takes, beside dcmqi
	@deploy/setup --tests && .venv/bin/python -m tests.bench_seg
