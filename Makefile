.PHONY: check test test-all smoke mutants fuzz cards results notebooks docs

check:  ## format, lint, types and the tests by hand: under a minute
	ruff format --check .
	ruff check .
	pyright
	pytest -q -n 0 tests/project/test_rules.py tests/analyses/circuits/test_by_hand.py tests/studies/test_study.py tests/core/test_nodes_and_curve.py

test:  ## everything, products of bases, methods and ablations by pairs (set NVS_ASSETS for the tests on trained models)
	pytest

test-all:  ## the same with the products whole and every signature's types and shapes checked: half an hour
	NVS_TESTS=all pytest --jaxtyping-packages=neuron_vs_sae,beartype.beartype

smoke:  ## every benchmark, in miniature
	python benchmarks/study_time.py --smoke
	python benchmarks/train_default.py --smoke --out $$(mktemp -d)
	python benchmarks/train_default_saes.py --smoke
	python benchmarks/speed.py --smoke
	python benchmarks/default_results.py --smoke
	python benchmarks/coverage.py --smoke
	python benchmarks/graph_results.py --smoke
	python benchmarks/graph_speed.py --smoke

mutants:  ## plant bugs and show that the tests catch them
	python tests/mutants.py

fuzz:  ## two thousand spoilt inputs in one process, then kills, full disks, two writers and memory limits
	python tests/robustness/fuzz.py --out results/robustness.md

cards:  ## measure the embedded default's models and dictionaries again
	python benchmarks/default_cards.py

results:  ## what stands in results/ (its second half needs NVS_ASSETS)
	python benchmarks/default_results.py
	python benchmarks/study_time.py --out results/study_time.md
	python benchmarks/speed.py --out results/speed.md
	python benchmarks/coverage.py --out results/coverage.md
	python benchmarks/graph_results.py
	python benchmarks/graph_speed.py

notebooks:  ## execute the notebooks' sources and write them with their outputs (needs '.[notebooks]')
	python docs/run_notebooks.py

docs:  ## build the documentation into docs/_build/html, warnings being errors (needs '.[docs]')
	sphinx-build -W --keep-going -q -b html docs docs/_build/html
