"""The laws that every basis, method and ablation keeps: all of them, on toys of four architectures, in float64."""

import subprocess
import sys
from typing import Any

import mutants
import pytest
import tables
import torch
import toys
from tables import make, random_scores, refused

import neuron_vs_sae as nvs
from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.execution.splice import Kept, edit, gradients, read, run

EXACT = 1e-9  # float64; sums of thousands of terms

basis_cases = pytest.mark.parametrize("basis_case", tables.BASES, ids=lambda c: c.name)
method_cases = pytest.mark.parametrize("method", tables.METHODS, ids=lambda c: c.id)
ablation_cases = pytest.mark.parametrize("ablation", tables.ABLATIONS, ids=lambda c: c.name)
PAIRS = toys.pairs()


# The whole product on the biased toy, where nothing vanishes by luck; on the other architectures the default.
products = pytest.mark.parametrize(
    ("kind", "ablation"),
    [(kind, a.name) for kind in toys.MODELS for a in tables.ABLATIONS if kind == "gpt2" or a.name == "mean"],
)
# Batches and positions are a method's business and, through what encoders remember, a basis's: one by one, not all by all.
pairings = pytest.mark.parametrize(
    ("basis_case", "method"),
    [(b, tables.METHODS[0]) for b in tables.BASES]
    + [(b, m) for m in tables.METHODS for b in tables.BASES if b.name in {"sae three kinds", "transcoder"}],
    ids=lambda c: c.id if isinstance(c, tables.MethodCase) else c.name,
)


@pytest.mark.parametrize(
    ("folder", "lines"),
    [
        ("bases", {c.name.split(" ")[0] for c in tables.BASES}),
        ("attribution", {c.name.replace("relp_", "relp-").replace("no_", "no-") for c in tables.METHODS}),
        ("ablation", {c.name for c in tables.ABLATIONS}),
    ],
)
def test_every_file_has_a_line_in_the_table(folder: str, lines: set[str]) -> None:
    assert set(known(folder)) == lines


@basis_cases
def test_what_is_taken_apart_and_put_back_is_the_model(basis_case: tables.BasisCase, model: Any) -> None:
    """I1: encode, decode, add the error, keep everything: the model's logits, for every prompt."""
    basis = make(basis_case, model)
    index = basis.index(PAIRS.positions)
    everything = index.unflatten(torch.ones(len(index), dtype=torch.bool))
    kept = Kept(tuple(u for u, _ in everything), tuple(e for _, e in everything))
    reference = nvs.ablation.zero_units(model, basis, PAIRS, PAIRS, 0, 2)(torch.arange(5))
    plain = run(model, PAIRS.clean, PAIRS.length)
    assert torch.allclose(edit(model, basis, PAIRS.clean, PAIRS.length, kept, reference), plain, atol=EXACT, rtol=0)


@basis_cases
def test_pull_back_is_the_gradient_through_decode(basis_case: tables.BasisCase, llama: Any) -> None:
    basis = make(basis_case, llama)
    for dictionary in basis.dictionaries:
        units = torch.randn(2, 3, dictionary.width, dtype=torch.float64, requires_grad=True)
        gradient = torch.randn(2, 3, dictionary.d, dtype=torch.float64)
        (expected,) = torch.autograd.grad((dictionary.decode(units) * gradient).sum(), units)
        assert torch.allclose(dictionary.pull_back(gradient), expected, atol=1e-12)
        one, two = (dictionary.decode(torch.eye(dictionary.width, dtype=torch.float64) * k) for k in (1.0, 2.0))
        rows = dictionary.directions(torch.arange(dictionary.width)).double()
        assert torch.allclose(two - one, rows, atol=1e-12), "decode is affine, with these directions"


@basis_cases
@products
def test_the_whole_circuit_is_the_model_and_the_empty_one_explains_nothing(
    basis_case: tables.BasisCase, kind: str, ablation: str
) -> None:
    """I2, under the policies where every node can be kept: faithfulness 1 and completeness 0, and the reverse."""
    model = toys.model(kind)
    basis = make(basis_case, model)
    if refused(basis_case, ablation, kind):
        with pytest.raises(nvs.InputError, match=r"its heads share one b_O\. Use 'mean'"):
            nvs.evaluate(model, basis, random_scores(basis), PAIRS, ablation=ablation)
        return
    for errors in ("nodes", "keep"):
        curve = nvs.evaluate(
            model, basis, random_scores(basis), PAIRS, sizes=lambda n: (0, n), ablation=ablation, errors=errors
        )
        scale = abs(curve.denominator)
        assert torch.allclose(curve.faithfulness, torch.tensor([0.0, 1.0]).double(), atol=EXACT / scale)
        assert torch.allclose(curve.completeness, torch.tensor([1.0, 0.0]).double(), atol=EXACT / scale)
        assert torch.allclose(curve.circuit[1], curve.whole, atol=EXACT), "per prompt, not only on average"
        assert torch.allclose(curve.complement[1], curve.empty, atol=EXACT)
        assert curve.all_nodes is not None
        assert torch.allclose(curve.all_nodes, curve.whole, atol=EXACT)


@basis_cases
def test_without_errors_the_ceiling_is_the_reconstruction(basis_case: tables.BasisCase, model: Any) -> None:
    """I2 under `ablate`: empty 0, all units = removing nothing = the reconstruction; 1 where nothing is lost."""
    basis = make(basis_case, model)
    curve = nvs.evaluate(model, basis, random_scores(basis), PAIRS, sizes=lambda n: (0, n), errors="ablate")
    assert torch.allclose(curve.circuit[0], curve.empty, atol=EXACT)
    assert torch.allclose(curve.complement[1], curve.empty, atol=EXACT)
    assert torch.allclose(curve.circuit[1], curve.complement[0], atol=EXACT)
    lossless = all(d.lossless for d in basis.dictionaries)
    assert torch.allclose(curve.circuit[1], curve.whole, atol=EXACT) == lossless
    assert curve.n_total == PAIRS.positions * sum(d.width for d in basis.dictionaries)


@basis_cases
@ablation_cases
def test_removing_a_circuit_is_keeping_all_others(
    basis_case: tables.BasisCase, ablation: tables.AblationCase, gpt2: Any
) -> None:
    """I3: the complement of the best k is the circuit of the other nodes, exactly."""
    if refused(basis_case, ablation.name, "gpt2"):
        pytest.skip("zero_site refuses heads that share a bias")
    basis = make(basis_case, gpt2)
    scores = random_scores(basis)
    curve = nvs.evaluate(
        gpt2, basis, scores, PAIRS, sizes=lambda n: (n // 3,), ablation=ablation.name, rank_by="signed", engine="exact"
    )
    reverse = nvs.NodeScores(scores.index, -scores.values)
    k = curve.n_total - curve.sizes[0]
    other = nvs.evaluate(
        gpt2, basis, reverse, PAIRS, sizes=[k], ablation=ablation.name, rank_by="signed", engine="exact"
    )
    assert torch.equal(curve.complement[0], other.circuit[0])
    assert torch.equal(curve.circuit[0], other.complement[0])


@pytest.mark.parametrize("ablation", [a for a in tables.ABLATIONS if a.basis_free], ids=lambda c: c.name)
def test_ablating_everything_costs_the_same_in_every_basis_of_a_site(ablation: tables.AblationCase, model: Any) -> None:
    """I5 to I7: F(empty) belongs to the site, not to the basis."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for case in tables.BASES:
        if refused(case, ablation.name, model.cfg.model_name.removeprefix("toy-")):
            continue
        basis = make(case, model)
        curve = nvs.evaluate(model, basis, random_scores(basis), PAIRS, sizes=[0], ablation=ablation.name)
        found.setdefault(case.site, {})[case.name] = curve.empty
    # Where the map from neurons to the MLP's output is affine, they are one site (not past Gemma 2's `ln2_post`).
    if not model.cfg.use_normalization_before_and_after:
        found[tables.OUT].update(found[tables.POST])
    assert len(found[tables.OUT]) > 10
    for values in found.values():
        first = next(iter(values.values()))
        for name, value in values.items():
            assert torch.allclose(value, first, atol=EXACT), name


def test_zeroing_units_writes_what_the_decoder_writes_at_zero(gpt2: Any) -> None:
    """I7: `zero_units` leaves `b_dec` in an SAE and `b_out` after neurons; `zero_site` leaves nothing in any basis."""
    neurons, outputs, sae = (make(c, gpt2) for c in tables.BASES if c.name in {"mlp_neurons", "mlp_outputs", "sae"})

    def with_mlp(*written: torch.Tensor) -> torch.Tensor:
        edits = [(f"blocks.{i}.hook_mlp_out", lambda x, w=w: w.expand_as(x)) for i, w in enumerate(written)]
        logits = run(gpt2, PAIRS.clean, PAIRS.length, edits)
        return (logits.gather(1, PAIRS.answer[:, None]) - logits.gather(1, PAIRS.foil[:, None]))[:, 0]

    def empty(basis: nvs.Basis, ablation: str) -> torch.Tensor:
        return nvs.evaluate(gpt2, basis, random_scores(basis), PAIRS, sizes=[0], ablation=ablation).empty

    zero = torch.zeros(toys.D_MODEL, dtype=torch.float64)
    offsets = [d.decode(torch.zeros(d.width, dtype=torch.float64)) for d in sae.dictionaries]
    assert torch.allclose(empty(sae, "zero_units"), with_mlp(*offsets), atol=EXACT)
    assert torch.allclose(empty(neurons, "zero_units"), with_mlp(*(b.mlp.b_out for b in gpt2.blocks)), atol=EXACT)
    assert torch.allclose(empty(outputs, "zero_units"), with_mlp(zero, zero), atol=EXACT)
    for basis in (sae, neurons, outputs):
        assert torch.allclose(empty(basis, "zero_site"), with_mlp(zero, zero), atol=EXACT)


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, m)
        for kind in toys.MODELS
        for m in tables.METHODS
        if m.gradient and (kind == "llama" or m.id in {"relp", "attribution_patching", "integrated_gradients steps=3"})
    ],
    ids=lambda c: c if isinstance(c, str) else c.id,
)
def test_a_sites_total_attribution_does_not_depend_on_the_basis(
    kind: str, method: tables.MethodCase, pairing: str
) -> None:
    """I8: units and error of one position sum to <gradient, change of the site>, the same in every basis there.

    Unpaired, a basis's zero is `decode(0)`, so its total differs from the others' by <gradient, decode(0)>: only bases
    whose decoder has no offset are compared.
    """
    if pairing == "unpaired" and not method.unpaired:
        pytest.skip("needs the corrupt prompt")
    model = toys.model(kind)
    totals: dict[str, dict[str, torch.Tensor]] = {}
    for case in tables.BASES:
        basis = make(case, model)
        zero = torch.zeros(1, dtype=torch.float64)
        if method.name == "conductance" and case.name == "sae constant_norm":
            continue  # it divides by the activation's norm, which is 0 at a zero embedding without biases
        if case.site == "three kinds" or (pairing == "unpaired" and any(c.any() for c in basis.constants(zero))):
            continue
        scores = method(model, basis, PAIRS, pairing=pairing)
        totals.setdefault(case.site, {})[case.name] = torch.stack([u.sum(1) + e for u, e in scores.by_site()])
    # Integrated gradients of neurons move along the neurons' own line, which is the output's line where that is affine.
    if not model.cfg.use_normalization_before_and_after and (
        pairing == "paired" or model.cfg.model_name == "toy-llama"
    ):
        totals[tables.OUT].update(totals[tables.POST])
    assert len(totals[tables.OUT]) >= (10 if pairing == "paired" else 3)
    for values in totals.values():
        first = next(iter(values.values()))
        for name, value in values.items():
            # Conductance to a zero embedding passes where a norm's slope is huge: its terms cancel to 1e-9 of their size.
            assert torch.allclose(value, first, atol=EXACT, rtol=1e-7), name


@method_cases
def test_an_identity_sae_is_the_raw_basis_bit_for_bit(method: tables.MethodCase, model: Any) -> None:
    """I4: its scores."""
    raw, identity = (make(c, model) for c in tables.BASES if c.name in {"mlp_outputs", "sae identity"})
    assert raw.name == "mlp_outputs"
    ours, theirs = (method(model, basis, PAIRS) for basis in (raw, identity))
    assert torch.equal(ours.values, theirs.values)


@ablation_cases
@pytest.mark.parametrize("errors", ["nodes", "keep", "ablate"])
def test_an_identity_saes_curves_are_the_raw_bases(ablation: tables.AblationCase, errors: str, model: Any) -> None:
    """I4: bit for bit, counts included."""
    raw, identity = (make(c, model) for c in tables.BASES if c.name in {"mlp_outputs", "sae identity"})
    a, b = (
        nvs.evaluate(
            model,
            basis,
            random_scores(basis),
            PAIRS,
            sizes=[0, 7, 96],
            errors=errors,
            ablation=ablation.name,
            engine="exact",
        )
        for basis in (raw, identity)
    )
    assert (a.sizes, a.n_error_nodes, a.n_total) == (b.sizes, b.n_error_nodes, b.n_total)
    for name in ("whole", "empty", "circuit", "complement"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pairings
def test_scores_do_not_depend_on_batches(basis_case: tables.BasisCase, method: tables.MethodCase, llama: Any) -> None:
    basis = make(basis_case, llama)
    whole, parts = (method(llama, basis, PAIRS, batch_size=n).values for n in (64, 2))
    assert torch.allclose(whole, parts, atol=1e-12)


@pairings
def test_pooled_scores_are_the_sums_over_positions(
    basis_case: tables.BasisCase, method: tables.MethodCase, llama: Any
) -> None:
    if not method.pooled_is_sum:
        pytest.skip("patches a unit at all positions at once, or draws anew: not a sum by definition")
    basis = make(basis_case, llama)
    separate, pooled = (method(llama, basis, PAIRS, positions=p) for p in ("separate", "pooled"))
    for (units, errors), (unit, error) in zip(separate.by_site(), pooled.by_site(), strict=True):
        assert torch.allclose(units.sum(0, keepdim=True), unit, atol=1e-12)
        assert torch.allclose(errors.sum(0, keepdim=True), error, atol=1e-12)


@method_cases
def test_padding_changes_no_score(method: tables.MethodCase, model: Any) -> None:
    """Prompts of several lengths together score as the mean of each length alone."""
    basis = nvs.bases.sae(model, source=toys.saes())
    mixed = toys.pairs(4, 6, lengths=[6, 4, 6, 4])
    together = method(model, basis, mixed, positions="pooled").values
    if method.name == "random":
        return
    alone = []
    for i in range(4):
        one = mixed.take([i])
        n = int(one.length)
        cut = type(one)(**{**vars(one), "clean": one.clean[:, :n], "corrupt": one.corrupt[:, :n]})
        alone.append(method(model, basis, cut, positions="pooled").values)
    assert torch.allclose(together, torch.stack(alone).mean(0), atol=1e-10)


@ablation_cases
@pytest.mark.parametrize("positions", ["separate", "pooled"])
def test_curves_do_not_depend_on_batches(ablation: tables.AblationCase, positions: str, model: Any) -> None:
    basis = nvs.bases.sae(model, source=toys.saes())
    scores = random_scores(basis, positions=positions)
    one, two = (
        nvs.evaluate(model, basis, scores, PAIRS, ablation=ablation.name, batch_size=n, sizes=[0, 3, 11])
        for n in (64, 2)
    )
    for name in ("whole", "empty", "circuit", "complement"):
        assert torch.allclose(getattr(one, name), getattr(two, name), atol=1e-12), name


@ablation_cases
def test_padding_changes_no_curve(ablation: tables.AblationCase, model: Any) -> None:
    """More padding to the right of the same prompts: the same metric on every prompt."""
    basis = nvs.bases.sae(model, source=toys.saes())
    short = toys.pairs(4, 6, lengths=[6, 4, 6, 4])
    pad = torch.zeros(4, 3, dtype=torch.long)
    long = type(short)(
        **{**vars(short), "clean": torch.cat([short.clean, pad], 1), "corrupt": torch.cat([short.corrupt, pad], 1)}
    )
    scores = random_scores(basis, positions="pooled")
    a, b = (nvs.evaluate(model, basis, scores, p, sizes=[0, 5, 10], ablation=ablation.name) for p in (short, long))
    for name in ("whole", "empty", "circuit", "complement"):
        assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-12), name


def test_the_order_of_prompts_changes_nothing(model: Any) -> None:
    """I18. (`resample` draws its partners by row, so it is left out.)"""
    basis = nvs.bases.sae(model, source=toys.saes())
    order = [3, 0, 4, 1, 2]
    scores = [nvs.attribution.relp(model, basis, p) for p in (PAIRS, PAIRS.take(order))]
    assert torch.allclose(scores[0].values, scores[1].values, atol=1e-12)
    for ablation in ("mean", "mean_global", "counterfactual"):
        a = nvs.evaluate(model, basis, scores[0], PAIRS, sizes=[9], ablation=ablation)
        b = nvs.evaluate(model, basis, scores[0], PAIRS.take(order), sizes=[9], ablation=ablation)
        assert torch.allclose(a.circuit[:, order], b.circuit, atol=1e-12)


def test_a_later_token_never_changes_what_came_before(model: Any) -> None:
    """I13, in the model and under edits: causality is the model's, and no basis or replacement breaks it."""
    basis = nvs.bases.sae(model, source=toys.saes("hook_resid_post"))
    other = PAIRS.clean.clone()
    other[:, -1] = (other[:, -1] + 3) % toys.VOCAB
    one, two = (read(model, tokens, PAIRS.length, basis.hooks) for tokens in (PAIRS.clean, other))
    for hook in basis.hooks:
        assert torch.equal(one[hook][:, :-1], two[hook][:, :-1])


def test_the_last_layers_mlp_cannot_matter_before_the_answer_position(model: Any) -> None:
    """I14: exactly zero, for every gradient method."""
    basis = nvs.bases.mlp_neurons(model)
    for method in tables.METHODS:
        if method.gradient or method.name == "activation_patching":
            units, _ = method(model, basis, PAIRS).by_site()[-1]
            # Patched and unpatched runs differ in batch size, so in rounding; a gradient that does not exist is 0.
            assert units[:-1].abs().max() <= (0 if method.gradient else 1e-14), method.id
            assert units[-1].any(), method.id


@pytest.mark.parametrize("method", [m for m in tables.METHODS if m.gradient], ids=lambda c: c.id)
def test_saes_beside_neurons_leave_the_neurons_scores_alone(method: tables.MethodCase, llama: Any) -> None:
    """I15: with errors kept, taking other sites apart changes nothing at the model's own nodes."""
    neurons, saes = (make(c, llama) for c in tables.BASES if c.name in {"mlp_neurons", "sae resid_post"})
    both = nvs.Basis("both", neurons.sites + saes.sites, neurons.dictionaries + saes.dictionaries)
    alone, beside = (method(llama, basis, PAIRS).by_site() for basis in (neurons, both))
    for (units, _), (same, _) in zip(alone, beside[:2], strict=True):
        assert torch.allclose(units, same, atol=1e-12)


def test_a_cutting_site_carries_the_whole_prompt(model: Any) -> None:
    """I16: the corrupt prompt's residual stream after one layer gives the corrupt prompt's logits; MLP outputs do not."""
    corrupt = run(model, PAIRS.corrupt, PAIRS.length)

    def swapped(hooks: list[str]) -> torch.Tensor:
        values = read(model, PAIRS.corrupt, PAIRS.length, hooks)
        return run(model, PAIRS.clean, PAIRS.length, [(h, lambda x, h=h: values[h]) for h in hooks])

    assert torch.allclose(swapped(["blocks.0.hook_resid_post"]), corrupt, atol=1e-12)
    assert not torch.allclose(swapped([f"blocks.{i}.hook_mlp_out" for i in (0, 1)]), corrupt, atol=1e-3)


@pytest.mark.parametrize("kind", ["read", "run", "gradient"])
def test_no_hook_survives_a_run_that_fails(kind: str, llama: Any) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken on purpose")

    edits = [("blocks.1.hook_mlp_out", broken)]
    calls = {
        "run": lambda: run(llama, PAIRS.clean, PAIRS.length, edits),
        "read": lambda: read(llama, PAIRS.clean, PAIRS.length, ["blocks.0.hook_mlp_out"], edits),
        "gradient": lambda: gradients(
            llama, PAIRS.clean, PAIRS.length, ["blocks.0.hook_mlp_out"], lambda x: x[:, 0], edits
        ),
    }
    with pytest.raises(RuntimeError, match="on purpose"):
        calls[kind]()
    assert not any(point.fwd_hooks or point.bwd_hooks for point in llama.hook_dict.values())


def test_scores_of_one_basis_are_not_taken_for_anothers(llama: Any) -> None:
    """Same sites, same widths, other units: refused."""
    outputs, rotated = (make(c, llama) for c in tables.BASES if c.name in {"mlp_outputs", "rotation"})
    with pytest.raises(nvs.InputError, match=r"mlp_outputs .* and basis 'rotation'"):
        nvs.evaluate(llama, rotated, random_scores(outputs), PAIRS)


WRONG_CHOICES = """
import toys, neuron_vs_sae as nvs

model, pairs = toys.model("llama"), toys.pairs()
basis = nvs.bases.mlp_neurons(model)
scores = nvs.attribution.random(model, basis, pairs)
method = nvs.attribution
for call in (
    lambda: scores.top(1, rank_by="abs"),
    lambda: nvs.evaluate(model, basis, scores, pairs, errors="node"),
    lambda: method.relp(model, basis, pairs, pairing="unpair"),
    lambda: method.delta(model, basis, pairs, pairing="unpair"),
    lambda: method.relp(model, basis, pairs, positions="pool"),
    lambda: method.activation_patching(model, basis, pairs, direction="noise"),
    lambda: method.attribution_patching(model, basis, pairs, grad_at="cln"),
    lambda: method.integrated_gradients(model, basis, pairs, schedule="mid"),
    lambda: method.conductance(model, basis, pairs, steps=0),
):
    try:
        call()
    except nvs.InputError as error:
        print(error)
"""


def test_a_choice_that_does_not_exist_lists_those_that_do() -> None:
    """In a process of its own: here, the tests' type checker would refuse the call before the package does."""
    done = subprocess.run(
        [sys.executable, "-c", WRONG_CHOICES], cwd=mutants.ROOT / "tests", capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "no rank_by 'abs'; there are: absolute, signed",
        "no errors 'node'; there are: nodes, keep, ablate, resid_only",
        "no pairing 'unpair'; there are: paired, unpaired",
        "no pairing 'unpair'; there are: paired, unpaired",
        "no positions 'pool'; there are: separate, pooled",
        "no direction 'noise'; there are: noising, denoising",
        "no grad_at 'cln'; there are: clean, corrupt",
        "no schedule 'mid'; there are: left, right, midpoint",
        "steps=0: a path has at least one step",
    ]


def test_kl_has_no_slope_at_the_clean_prompt(llama: Any) -> None:
    basis = make(tables.BASES[0], llama)
    for name in ("relp", "attribution_patching"):
        with pytest.raises(nvs.InputError, match="zero at the clean prompt"):
            getattr(nvs.attribution, name)(llama, basis, PAIRS, "kl")
    assert nvs.attribution.integrated_gradients(llama, basis, PAIRS, "kl", steps=2).values.any()


def test_a_hook_that_is_never_reached_is_an_error(llama: Any) -> None:
    with pytest.raises(nvs.InputError, match="never runs it"):
        read(llama, PAIRS.clean, PAIRS.length, ["blocks.0.hook_mlp_in"])
    with pytest.raises(nvs.InputError, match=r"no hook 'blocks\.0\.hook_mlp_oot'.*hook_mlp_out"):
        read(llama, PAIRS.clean, PAIRS.length, ["blocks.0.hook_mlp_oot"])


def test_circuits_are_nested_and_of_the_size_asked_for_in_every_basis(llama: Any) -> None:
    for case in tables.BASES:
        basis = make(case, llama)
        # Many exact ties: most units of an SAE never fire.
        scores = nvs.attribution.delta(llama, basis, PAIRS)
        smaller: set[int] = set()
        for k in nvs.log_sizes(len(scores.order())):
            circuit = scores.top(k)
            assert len(circuit) == k == circuit.n_units + circuit.n_error_nodes
            assert smaller <= set(circuit.nodes.tolist())
            smaller = set(circuit.nodes.tolist())
