"""Plants bugs, one at a time, in a copy of the project, and shows that the tests catch each: `make mutants`.

Exit status 1 when one survives, or when the code that a bug replaces is no longer there.
"""

import os
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HAND, LAWS, CHANGE = (f"tests/analyses/circuits/test_{name}.py" for name in ("by_hand", "conformance", "change"))
SCORES = "tests/catalog/test_method_laws.py"
RELP, ENGINE = (f"tests/execution/test_{name}.py" for name in ("relp", "engine"))
METHODS, STATISTICS = "tests/catalog/test_attribution.py", "tests/statistics/test_statistics.py"
TRACE, GRAPHS = (f"tests/analyses/graphs/test_{name}.py" for name in ("trace", "graphs"))
GRAPH_PAGE = "tests/report/test_graph_page.py"
COMPARING, VERDICT = "tests/running/test_comparing.py", "tests/studies/test_verdict.py"


@dataclass(frozen=True)
class Mutant:
    """A bug: `old` in `file` becomes `new`; `tests` (pytest arguments) should fail."""

    bug: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant("wrong sign of the change", "catalog/attribution/_contraction.py",
           "change = change - dictionary.encode(to_y[b, p])", "change = dictionary.encode(to_y[b, p]) - change", HAND),
    Mutant("top k keeps k - 1", "core/nodes.py", "Circuit(self.index, order[:k])", "Circuit(self.index, order[: max(k - 1, 0)])",
           f"{LAWS} -k nested"),
    Mutant("the curve's circuits are one node short", "analyses/circuits/evaluation.py", "Run(full, order[:k], constants) if", "Run(full, order[: max(k - 1, 0)], constants) if",
           HAND),
    Mutant("ties go to the later node", "core/nodes.py", "torch.sort(keys[candidates], descending=True, stable=True).indices",
           "(len(candidates) - 1 - torch.sort(keys[candidates].flip(0), descending=True, stable=True).indices)", HAND),
    Mutant("signed ranking everywhere", "core/nodes.py", 'self.values.abs() if rank_by == "absolute" else self.values',
           "self.values", "tests/core/test_nodes_and_curve.py -k rankings_differ"),
    Mutant("gradient cut to earlier sites", "execution/splice.py", "return x + probes[hook]", "return x.detach() + probes[hook]", HAND),
    Mutant("left end instead of the midpoint", "catalog/attribution/_path.py", '"midpoint": 0.5', '"midpoint": 0.0', HAND),
    Mutant("right end is the left one", "catalog/attribution/_path.py", '"right": 1.0', '"right": 0.0',
           f"{METHODS} -k points"),
    Mutant("mean over positions instead of prompts", "catalog/ablation/mean.py", "lambda x: (x / reached.clamp(min=1)).to",
           "lambda x: (x.mean(1, keepdim=True) / reached.mean()).expand_as(x).to", HAND),
    Mutant("padding counted in the mean", "catalog/references.py", "(x.double() * real).sum(0, keepdim=True)",
           "x.double().sum(0, keepdim=True)", HAND),
    Mutant("error node dropped from what is written", "execution/splice.py", "dictionary.decode(units) + error",
           "dictionary.decode(units)", f"{LAWS} -k put_back"),
    Mutant("complement without what the policy keeps", "analyses/circuits/evaluation.py", "among | fixed if run.full", "among if run.full",
           f"{ENGINE} -k splice"),
    Mutant("complement keeps the circuit", "analyses/circuits/evaluation.py", "for full in (False, True))", "for full in (False, False))", HAND),
    Mutant("error nodes kept in every exact run", "analyses/circuits/roles.py", '_spread(index, False, [policy in ("keep", "lossless")',
           "_spread(index, False, [True", f"{ENGINE} -k splice"),
    Mutant("error nodes live in the fast engine's empty run", "analyses/circuits/roles.py", 'empty=policy in ("keep", "lossless")',
           "empty=True", HAND),
    Mutant("reference values one position late", "execution/splice.py", "units, reference.features.units[s])",
           "units, reference.features.units[s].roll(1, 1))", f"{ENGINE} -k splice"),
    Mutant("answer read one position early", "execution/splice.py", "length.to(x.device) - 1", "length.to(x.device) - 2",
           f"{SCORES} -k 'last_layers and gpt2'"),
    Mutant("error scored by absolute values", "catalog/attribution/_contraction.py", "else total - units.sum(1)",
           "else (total - units.sum(1)).abs()", f"{SCORES} -k total_attribution"),
    Mutant("scores summed, not averaged, over pairs", "catalog/attribution/_contraction.py", "(units / n, error / n)",
           "(units, error)", f"{SCORES} -k padding_changes_no_score"),
    Mutant("pooling keeps the first position", "catalog/attribution/_contraction.py",
           "(units.sum(0, keepdim=True), error.sum(0, keepdim=True))", "(units[:1], error[:1])", f"{SCORES} -k sums_over_positions"),
    Mutant("unpaired still subtracts the corrupt prompt", "catalog/attribution/_contraction.py", 'None if pairing == "unpaired" else',
           'None if pairing == "never" else', HAND),
    Mutant("RelP without the half", "execution/replacement.py", '"half": 0.5 * (to_gate + to_up)', '"half": to_gate + to_up', HAND),
    Mutant("RelP differentiates norms", "execution/replacement.py", 'if hook.endswith(".hook_scale")', 'if hook.endswith(".no_scale")', RELP),
    Mutant("RelP uses the slope, not the chord", "execution/replacement.py", "activated = pre * _chord(act, at, value.detach() if linear is None else None)",
           "activated = act(pre)", RELP),
    Mutant("RelP changes the forward pass", "execution/replacement.py", "value.detach() + (path - path.detach())",
           "path + 1e-3 * value.detach()", RELP),
    Mutant("RelP's observers hide the probe", "execution/splice.py", "[*edits, *map(probe, hooks), *observers]",
           "[*edits, *observers, *map(probe, hooks)]", RELP),
    Mutant("corrections of the complement are added", "execution/slots.py", "1.0 if form[r, q] == REFERENCE else -1.0", "1.0",
           f"{ENGINE} -k splice"),
    Mutant("runs begin one position late", "execution/slots.py", "first.append(start)", "first.append(min(start + 1, positions))",
           f"{ENGINE} -k splice"),
    Mutant("a cut forgets the site's own slots", "execution/slots.py", "start = earliest[s]", "start = positions", "tests/execution/test_slots.py"),
    Mutant("a flipped error node is written as if it were not", "execution/slots.py", "if error.exact or live == full:", "if True:",
           f"{ENGINE} -k splice"),
    Mutant("an ablated MLP is run for nothing", "execution/passes.py", "dense = wanted & (own.form != REFERENCE) if isinstance(own, Slots) else wanted",
           "dense = torch.ones_like(wanted)", f"{ENGINE} -k neurons"),
    Mutant("a slice of a dictionary's slots is lost", "execution/overwrite.py", "list(torch.arange(n).split(max(1, HELD // max(1, elements))))",
           "[torch.arange(n).split(max(1, HELD // max(1, elements)))[0]]", f"{ENGINE} -k slices"),
    Mutant("post-norm blocks are run pre-norm", "execution/passes.py", "normed = x.flatten(0, 1) if self.norms_last else", "normed =",
           "tests/models/test_architectures.py -k 'fast_engine and olmo2'"),
    Mutant("gradients of few units in another order", "core/dictionary.py", "entries[order] = torch", "entries[:] = torch",
           f"{METHODS} -k alone"),
    Mutant("path points of copies run together", "catalog/attribution/_path.py", "end for alpha in alphas])", "end for alpha in alphas[::-1]])",
           f"{METHODS} -k cost_the"),
    Mutant("a shared activation of another prompt", "execution/cache.py", "        digest.update(_bytes(tokens))\n", "", "tests/execution/test_cache.py -k another"),
    Mutant("a damaged entry is believed", "execution/cache.py", 'if stored.metadata() != {"sum": _checksum(value)}:', "if False:",
           "tests/execution/test_cache.py -k damaged"),
    Mutant("weights are no part of a cache's key", "execution/cache.py", "        digest.update(_bytes(tensor))\n", "        pass\n",
           "tests/execution/test_cache.py -k weights"),
    Mutant("resampling draws the pair itself", "catalog/ablation/resample.py", "(torch.arange(len(pairs)) != i)",
           "(torch.arange(len(pairs)) == i)", HAND),
    Mutant("counterfactual writes another pair's value", "catalog/ablation/counterfactual.py", "pairs.batch(rows)", "pairs.batch(rows.flip(0))",
           HAND),
    Mutant("zero_site leaves decode(0)", "catalog/ablation/zero_site.py", "offset if bool(offset.any()) else None for", "None for",
           f"{LAWS} -k zeroing"),
    Mutant("zero_site leaves b_out", "catalog/ablation/zero_site.py", "return hook, vector", "return hook, 0 * vector",
           f"{LAWS} -k zeroing"),
    Mutant("transcoder reads where it writes", "execution/splice.py", "if site.reads != site.writes else x",
           "if site.reads == 'no' else x", f"{ENGINE} -k splice"),
    Mutant("per-token scale forgotten", "catalog/dictionaries/autoencoder.py", "units * scale if normalised else units", "units",
           "tests/catalog/test_dictionaries.py -k reconstructs"),
    Mutant("decoder rows not rescaled", "catalog/dictionaries/autoencoder.py", "matrix = matrix / matrix.norm(dim=-1, keepdim=True)", "pass",
           "tests/catalog/test_dictionaries.py -k reconstructs"),
    Mutant("a gated unit reads without its magnitude", "catalog/dictionaries/reading.py", "rows = rows * module.r_mag[units, None].exp()", "pass",
           "tests/core/test_dictionary.py -k by_hand"),
    Mutant("a dictionary that is read again takes the dense path", "catalog/dictionaries/streaming.py",
           "return self._get().pull_back_some(gradient, row, unit)", "return self.pull_back(gradient)[row, unit]",
           "tests/catalog/test_streaming.py -k few_changing"),
    Mutant("completeness of the circuit", "core/curve.py", "(self.complement.mean(1) - self.empty.mean())",
           "(self.circuit.mean(1) - self.empty.mean())", HAND),
    Mutant("faithfulness as a mean of ratios", "core/curve.py", "(self.circuit.mean(1) - self.empty.mean()) / self.denominator",
           "((self.circuit - self.empty) / (self.whole - self.empty)).mean(1)", "tests/core/test_nodes_and_curve.py"),
    Mutant("bits in nats", "core/sizes.py", "lgamma(total - k + 1)) / log(2)", "lgamma(total - k + 1))",
           "tests/core/test_nodes_and_curve.py"),
    Mutant("patching keeps the sign of denoising", "catalog/attribution/activation_patching.py",
           'sign = 1.0 if direction == "noising" else -1.0', "sign = 1.0", f"{METHODS} -k exact_patching"),
    Mutant("evaluation shares prompts with discovery", "core/pairs.py", "if pairs.clean_text[i] not in theirs\n",
           "if True\n", "tests/core/test_pairs.py"),
    Mutant("a task's two parts share words", "catalog/tasks/_generate.py", '"evaluation": tuple(words[2::3])', '"evaluation": tuple(words[::3])',
           "tests/catalog/test_tasks.py -k keeps_its"),
    Mutant("a pair's words may lie elsewhere", "catalog/tasks/_generate.py", "if place == chosen}", "if place}",
           "tests/catalog/test_drawing.py -k layout"),
    Mutant("what is dropped is not counted", "core/building.py", "dropped[tokens.reason] += 1", "dropped[tokens.reason] += 0",
           "tests/catalog/test_drawing.py -k dropped"),
    Mutant("an option is left out of the key", "studies/spec.py", 'self.model_dump(mode="json")', 'self.model_dump(mode="json", exclude={"seed"})',
           "tests/studies/test_study.py"),
    Mutant("prompts are drawn, not their clusters", "statistics/resampling.py", "return Draws(clusters, counts)",
           "return draw(independent(len(clusters.cluster)), resamples, seed) if clusters.n_clusters < len(clusters.cluster) else Draws(clusters, counts)",
           f"{STATISTICS} -k 'clusters or repeat'"),
    Mutant("strata are forgotten", "statistics/resampling.py", "for members in clusters.strata:\n        n = len(members)\n        drawn",
           "for members in [np.arange(clusters.n_clusters)]:\n        n = len(members)\n        drawn", f"{STATISTICS} -k strat"),
    Mutant("tails are not expanded", "statistics/bootstrap.py", "expanded = estimate.expansion * t.ppf(half, estimate.freedom)",
           "expanded = ndtri(half)", f"{STATISTICS} -k scipys"),
    Mutant("no acceleration", "statistics/bootstrap.py", "cubes / scale, 0.0) / 6", "0.0 * cubes, 0.0)", f"{STATISTICS} -k scipys"),
    Mutant("resamples that miss the level are dropped", "statistics/estimates.py", "(sizes, at, method", "(sizes[np.isfinite(sizes)], at, method", f"{STATISTICS} -k dropped"),
    Mutant("one-sided sign flips", "statistics/permutation.py", "np.abs(parts.T @ signs.T, out=", "np.matmul(parts.T, signs.T, out=", f"{COMPARING} -k patterns"),
    Mutant("more completeness is better", "studies/findings.py", "above == (np.asarray(sign) > 0)", "above", VERDICT),
    Mutant("verdicts by p-values that are not adjusted", "studies/verdict.py", 'table["p_holm"].to_numpy', 'table["p"].to_numpy',
           f"{VERDICT} -k holm"),
    Mutant("one size measure for the whole family", "studies/verdict.py", '["family", "size_measure", "score"]', '["family", "score"]',
           f"{VERDICT} -k adjusted"),
    Mutant("bases are compared on stretches of their own", "statistics/size_measures.py", "min(sizes[-1] for sizes in reached)",
           "max(sizes[-1] for sizes in reached)", COMPARING),
    Mutant("error nodes count as units", "statistics/size_measures.py", '"units": nodes - curve.n_error_nodes', '"units": nodes', COMPARING),
    Mutant("what padding changes counts", "analyses/circuits/change.py", "(squares * real).sum(1)", "squares.sum(1)", CHANGE),
    Mutant("each step's change is measured alone", "analyses/circuits/change.py", "for step in steps:\n        for block", "for step in steps:\n        at_site = torch.zeros_like(error)\n        for block", CHANGE),
    Mutant("a fold's scores are of other prompts", "catalog/attribution/_contraction.py", "groups[:, rows_of] @ part",
           "groups[:, : len(part)] @ part", "tests/analyses/circuits/test_stability.py -k 'mean_of_its_folds and relp'"),
    Mutant("nodes that some folds leave at zero are not ranked", "analyses/circuits/folds.py", "(by_fold != 0).any(0)", "(by_fold != 0).all(0)",
           "tests/analyses/circuits/test_stability.py -k ranking_all_nodes"),
    Mutant("folds weigh alike whatever was drawn", "analyses/circuits/folds.py", "torch.from_numpy(times) * folds", "torch.ones(times.shape) * folds",
           "tests/analyses/circuits/test_stability.py -k ranking_all_nodes"),
    Mutant("every kept node is core", "analyses/circuits/stability.py", "core = kept >= CORE", "core = kept > 0", "tests/analyses/circuits/test_stability.py -k outweighs"),
    Mutant("a template is compared with a circuit that it is part of", "analyses/circuits/stability.py", "others = (scores.values * n - its * its_n) / (n - its_n)",
           "others = scores.values", "tests/studies/circuits/test_stability_files.py -k templates_are_compared"),
    Mutant("each seed holds out prompts of its own", "running/tasks.py", "seed=first, by=split_by", "seed=seed, by=split_by",
           "tests/studies/test_seeds.py -k draws_its_own"),
    Mutant("fitted bases are fitted once for all seeds", "running/planning.py", 'task if takes("bases", text, "prompts")',
           'task and task.name if takes("bases", text, "prompts")', "tests/studies/test_seeds.py -k fitted"),
    Mutant("a step is believed before all of it is written", "studies/cells.py", "        for name, table in outcome.tables.items():\n",
           '        files.write_json(self._listed(step), {})\n        for name, table in outcome.tables.items():\n', "tests/running/test_frame.py -k believed"),
    Mutant("a cell has another's folder", "studies/cells.py", "json.dumps(self.names)", "json.dumps(self.names[:1])",
           "tests/running/test_frame.py -k known_by"),
    Mutant("policies that differ are taken for one", "studies/circuits/sizes.py",
           "bool((chosen == same_chosen).all()) and bool((kept == same_kept).all())", "bool((kept == same_kept).all()) or True",
           "tests/studies/circuits/test_steps.py -k policies"),
    Mutant("half-written files", "core/files.py", "put(temporary)\n", "put(file)\n        put(temporary)\n",
           "tests/studies/test_failing_disks.py -k half_written"),
    Mutant("bold where one other basis is worse", "report/columns.py", "if others and all(", "if others and any(",
           "tests/report/test_paper_tables.py -k best_is_bold"),
    Mutant("markup in figures", "report/escaping.py", 'return in_html(text).replace("$", "&#36;")', "return visible(text)",
           "tests/report/test_escaping.py"),
    Mutant("overlap of what one has", "report/plots/circuits.py", "counts[:, None] + counts[None, :] - both", "counts[:, None] + 0 * both",
           "tests/report/test_plots.py -k overlap_is"),
    Mutant("a graph's sites are not cut", "execution/cut.py", "return site.put(activation, x.detach() + record.probes[s])",
           "return site.put(activation, x + record.probes[s])", f"{TRACE} -k frozen_model_moves"),
    Mutant("a graph's totals bend with the errors", "execution/cut.py", "live = x if dictionary.lossless else", "live = x if True else",
           f"{TRACE} -k all_paths"),
    Mutant("selected units are in the rest too", "analyses/graphs/contributions.py",
           "left[position] -= dictionary.written(value[mine], chosen.unit[mine])", "dictionary.written(value[mine], chosen.unit[mine])",
           f"{TRACE} -k its_value"),
    Mutant("a dictionary's constant is in no edge", "analyses/graphs/contributions.py", "bias += constant.sum(1)", "constant.sum(1)",
           f"{TRACE} -k its_value"),
    Mutant("a smaller graph forgets the units it leaves out", "analyses/graphs/graph.py", "edges.units[rows][:, others])\n            return",
           "0 * edges.units[rows][:, others])\n            return", f"{TRACE} -k nested"),
    Mutant("what a graph leaves over counts as token", "analyses/graphs/influence.py",
           "tokens, errors = reached[order.token].sum(), reached[order.error].sum()",
           "tokens, errors = reached[order.token].sum() + reached[order.error].sum(), 0 * reached.sum()", f"{GRAPHS} -k scores_by_hand"),
    Mutant("pruning keeps nodes without an edge in", "analyses/graphs/influence.py", "kept[: order.units] &= has_in[: order.units]",
           "kept[: order.units] &= True", f"{GRAPHS} -k fall_away"),
    Mutant("a kept edge carries the clean value", "analyses/graphs/circuits.py", "live[:t] @ values, values])",
           "live[:t] @ graph.values[t:], values])", f"{GRAPHS} -k one_patched_edge"),
    Mutant("the graphs' server follows links out of its folder", "report/graph_server.py",
           "file if file.is_relative_to(folder.resolve()) and file.is_file()", "file if file.is_file()", f"{GRAPH_PAGE} -k served"),
    Mutant("the second-order term has the wrong sign", "catalog/attribution/attribution_patching.py", 'half = -0.5 if grad_at == "clean" else 0.5',
           'half = 0.5 if grad_at == "clean" else -0.5', "tests/catalog/test_second_order.py -k quadratic"),
    Mutant("an intervention is read after it is written", "execution/changes.py", "offset + slope * values, units)", "offset + slope * (values + offset), units)",
           "tests/analyses/interventions/test_changes.py -k random"),
    Mutant("the slope of a clamp is forgotten", "analyses/interventions/doses.py", "(-like).expand_as(target).clone()", "(0 * like).expand_as(target).clone()",
           "tests/analyses/interventions/test_steering.py -k say"),
    Mutant("a frontier is scored on the half that chose", "analyses/interventions/frontier.py", "efficacy[halves != half, j] = np.sign(gains[best]) * effect[best, halves != half]",
           "efficacy[halves == half, j] = np.sign(gains[best]) * effect[best, halves == half]", "tests/analyses/interventions/test_steering.py -k other_half"),
    Mutant("delta x gradient away from the donor", "analyses/interventions/ranking.py", "scores = (units - theirs)", "scores = (theirs - units)",
           "tests/analyses/interventions/test_patching.py -k attribution_patching"),
    Mutant("a successor is its own", "analyses/interventions/heads.py", "return [(i, (i + 1) % n)", "return [(i, i % n)", "tests/analyses/interventions/test_heads.py -k planted_successor"),
    Mutant("a damaged value is not looked for", "studies/record.py", "    if lost:\n        raise FolderError(", "    if False:\n        raise FolderError(",
           "tests/studies/test_sound_folders.py -k damaged_value"),
    Mutant("a damaged cell is believed", "studies/cells.py", "return all(digest(self.folder / name) == expected for name, expected in digests.items())",
           "return bool(digests)", "tests/studies/test_sound_folders.py -k unfinished_cell"),
    Mutant("compare accepts poor SAEs", "running/describing.py", "strict=not loaded.spec.accept_poor_sae", "strict=False",
           "tests/robustness/test_silent_input.py -k spoilt"),
    Mutant("a pair may be the same prompt twice", "core/tokenizing.py", "            and clean != corrupt\n", "",
           "tests/robustness/test_silent_input.py -k same"),
    Mutant("a file of the hub is not compared with its hash", "models/hub.py", "return digest.hexdigest() == contents.name", "return True",
           "tests/models/test_hub_over_http.py -k hash"),
]  # fmt: skip


def main() -> int:
    """Run all of them (or those whose description holds the argument), print a line each, count the survivors."""
    chosen = [m for m in MUTANTS if not sys.argv[1:] or sys.argv[1] in m.bug]
    survivors = 0
    for name in ("torch", "pandas", "scipy.stats", "transformer_lens", "sae_lens"):
        import_module(name)  # once, for every fork
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "results", "__pycache__", "nvs-results"))
        without_bug: dict[str, int] = {}
        for mutant in chosen:
            started = time.perf_counter()
            if mutant.tests not in without_bug:
                without_bug[mutant.tests] = status_of(mutant.tests, copy)
            verdict = verdict_on(mutant, copy, without_bug[mutant.tests])
            survivors += verdict != "caught"
            print(f"{verdict:>9}  {mutant.bug}  ({time.perf_counter() - started:.0f} s)", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} planted bugs were caught")
    return 1 if survivors else 0


def verdict_on(mutant: Mutant, copy: Path, without_bug: int) -> str:
    """`caught`, or what happened instead; the copy is as it was afterwards. `without_bug`: pytest's status before it is planted."""
    if without_bug != 0:
        return f"NOTHING SHOWN (pytest status {without_bug} without the bug)"
    file = copy / "neuron_vs_sae" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"NOT PLANTED ({text.count(mutant.old)} places)"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    status = status_of(mutant.tests, copy)
    file.write_text(text, encoding="utf-8")
    # 1: a test failed. Anything else (0 passed, 2 interrupted, 4 usage, 5 none collected) caught nothing.
    return "caught" if status == 1 else f"SURVIVED (pytest status {status})"


def status_of(tests: str, folder: Path) -> int:
    """The exit status of the tests on the package in that folder, in a fork: it has imported all but the package."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 3
    try:
        os.chdir(folder)
        # No bytecode: it is told from its source by time and size, which a bug may leave as they were.
        os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path[:0] = [str(folder)]
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            known = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins that the imports brought in before pytest
            status = int(pytest.main(["-x", "-q", "-n", "0", "-W", known, *shlex.split(tests)]))
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
