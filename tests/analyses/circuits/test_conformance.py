"""The laws that every basis, ablation and error policy keeps: on toys of four architectures, in float64.

Every law runs on every basis. Where it speaks of ablations, error policies or architectures too, it runs on rows that hold
every pair of their values (`covering.py`), or where it says so on each in turn; `NVS_TESTS=all` runs the products.
"""

import re
from typing import Any

import pytest
import tables
import torch
import toys
from covering import ALL, covering, in_turn
from tables import make, random_scores, refused

import neuron_vs_sae as nvs
from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.execution.splice import Kept, edit, gradients, read, run

EXACT = 1e-9  # float64; sums of thousands of terms
PAIRS = toys.pairs()
ABLATIONS = tuple(case.name for case in tables.ABLATIONS)

basis_cases = pytest.mark.parametrize("basis_case", tables.BASES, ids=lambda c: c.name)
ablation_cases = pytest.mark.parametrize("ablation", tables.ABLATIONS, ids=lambda c: c.name)


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else value.name


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


@pytest.mark.checked
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


@pytest.mark.parametrize(
    ("basis_case", "kind", "ablation", "errors"),
    covering(
        tables.BASES,
        tuple(toys.MODELS),
        ABLATIONS,
        ("nodes", "keep"),
        allowed=lambda case, kind, ablation, _: not refused(case, ablation, kind),
    ),
    ids=name_of,
)
def test_the_whole_circuit_is_the_model_and_the_empty_one_explains_nothing(
    basis_case: tables.BasisCase, kind: str, ablation: str, errors: Any
) -> None:
    """I2, under the policies where every node can be kept: faithfulness 1 and completeness 0, and the reverse."""
    model = toys.model(kind)
    basis = make(basis_case, model)
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


@pytest.mark.parametrize(("basis_case", "kind"), in_turn(tables.BASES, tuple(toys.MODELS)), ids=name_of)
def test_without_errors_the_ceiling_is_the_reconstruction(basis_case: tables.BasisCase, kind: str) -> None:
    """I2 under `ablate`: empty 0, all units = removing nothing = the reconstruction; 1 where nothing is lost."""
    model = toys.model(kind)
    basis = make(basis_case, model)
    curve = nvs.evaluate(model, basis, random_scores(basis), PAIRS, sizes=lambda n: (0, n), errors="ablate")
    assert torch.allclose(curve.circuit[0], curve.empty, atol=EXACT)
    assert torch.allclose(curve.complement[1], curve.empty, atol=EXACT)
    assert torch.allclose(curve.circuit[1], curve.complement[0], atol=EXACT)
    lossless = all(d.lossless for d in basis.dictionaries)
    assert torch.allclose(curve.circuit[1], curve.whole, atol=EXACT) == lossless
    assert curve.n_total == PAIRS.positions * sum(d.width for d in basis.dictionaries)


@pytest.mark.parametrize(
    ("basis_case", "ablation", "kind"),
    covering(tables.BASES, ABLATIONS, tuple(toys.MODELS), allowed=lambda *row: not refused(*row)),
    ids=name_of,
)
def test_removing_a_circuit_is_keeping_all_others(basis_case: tables.BasisCase, ablation: str, kind: str) -> None:
    """I3: the complement of the best k is the circuit of the other nodes, exactly."""
    model = toys.model(kind)
    basis = make(basis_case, model)
    scores = random_scores(basis)
    curve = nvs.evaluate(
        model, basis, scores, PAIRS, sizes=lambda n: (n // 3,), ablation=ablation, rank_by="signed", engine="exact"
    )
    reverse = nvs.NodeScores(scores.index, -scores.values)
    k = curve.n_total - curve.sizes[0]
    other = nvs.evaluate(model, basis, reverse, PAIRS, sizes=[k], ablation=ablation, rank_by="signed", engine="exact")
    assert torch.equal(curve.complement[0], other.circuit[0])
    assert torch.equal(curve.circuit[0], other.complement[0])


@pytest.mark.parametrize("kind", toys.BIASED)
def test_heads_that_share_a_bias_have_no_site_to_zero(kind: str) -> None:
    model, case = toys.model(kind), next(case for case in tables.BASES if refused(case, "zero_site", kind))
    basis = make(case, model)
    with pytest.raises(nvs.InputError, match=r"its heads share one b_O\. Use 'mean'"):
        nvs.evaluate(model, basis, random_scores(basis), PAIRS, ablation="zero_site")


# Every ablation where nothing vanishes by luck, and in turn on the other architectures; each on every basis.
@pytest.mark.parametrize(
    ("ablation", "kind"),
    [
        (ablation.name, kind)
        for i, ablation in enumerate(a for a in tables.ABLATIONS if a.basis_free)
        for j, kind in enumerate(toys.MODELS)
        if ALL or kind == "gpt2" or i == j
    ],
)
def test_ablating_everything_costs_the_same_in_every_basis_of_a_site(ablation: str, kind: str) -> None:
    """I5 to I7: F(empty) belongs to the site, not to the basis."""
    model = toys.model(kind)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for case in tables.BASES:
        if refused(case, ablation, kind):
            continue
        basis = make(case, model)
        curve = nvs.evaluate(model, basis, random_scores(basis), PAIRS, sizes=[0], ablation=ablation)
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


@pytest.mark.parametrize(
    ("ablation", "errors", "kind"), covering(ABLATIONS, ("nodes", "keep", "ablate"), tuple(toys.MODELS))
)
def test_an_identity_saes_curves_are_the_raw_bases(ablation: str, errors: str, kind: str) -> None:
    """I4: bit for bit, counts included."""
    model = toys.model(kind)
    raw, identity = (make(c, model) for c in tables.BASES if c.name in {"mlp_outputs", "sae identity"})
    a, b = (
        nvs.evaluate(
            model,
            basis,
            random_scores(basis),
            PAIRS,
            sizes=[0, 7, 96],
            errors=errors,
            ablation=ablation,
            engine="exact",
        )
        for basis in (raw, identity)
    )
    assert (a.sizes, a.n_error_nodes, a.n_total) == (b.sizes, b.n_error_nodes, b.n_total)
    for name in ("whole", "empty", "circuit", "complement"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize(
    ("ablation", "positions", "kind"), covering(ABLATIONS, ("separate", "pooled"), tuple(toys.MODELS))
)
def test_curves_do_not_depend_on_batches(ablation: str, positions: str, kind: str) -> None:
    model = toys.model(kind)
    basis = nvs.bases.sae(model, source=toys.saes())
    scores = random_scores(basis, positions=positions)
    one, two = (
        nvs.evaluate(model, basis, scores, PAIRS, ablation=ablation, batch_size=n, sizes=[0, 3, 11]) for n in (64, 2)
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


def test_a_cutting_site_carries_the_whole_prompt(model: Any) -> None:
    """I16: the corrupt prompt's residual stream after one layer gives the corrupt prompt's logits; MLP outputs do not."""
    corrupt = run(model, PAIRS.corrupt, PAIRS.length)

    def swapped(hooks: list[str]) -> torch.Tensor:
        values = read(model, PAIRS.corrupt, PAIRS.length, hooks)
        return run(model, PAIRS.clean, PAIRS.length, [(h, lambda x, h=h: values[h]) for h in hooks])

    assert torch.allclose(swapped(["blocks.0.hook_resid_post"]), corrupt, atol=1e-12)
    assert not torch.allclose(swapped([f"blocks.{i}.hook_mlp_out" for i in (0, 1)]), corrupt, atol=1e-3)


@pytest.mark.checked
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


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, basis, scores: scores.top(1, rank_by="abs"), "no rank_by 'abs'; there are: absolute, signed"),
        (
            lambda model, basis, scores: nvs.evaluate(model, basis, scores, PAIRS, errors="node"),
            "no errors 'node'; there are: nodes, keep, ablate, resid_only",
        ),
        *(
            (
                lambda model, basis, scores, name=name, options=options: getattr(nvs.attribution, name)(
                    model, basis, PAIRS, **options
                ),
                said,
            )
            for name, options, said in (
                ("relp", {"pairing": "unpair"}, "no pairing 'unpair'; there are: paired, unpaired"),
                ("delta", {"pairing": "unpair"}, "no pairing 'unpair'; there are: paired, unpaired"),
                ("relp", {"positions": "pool"}, "no positions 'pool'; there are: separate, pooled"),
                ("activation_patching", {"direction": "noise"}, "no direction 'noise'; there are: noising, denoising"),
                ("attribution_patching", {"grad_at": "cln"}, "no grad_at 'cln'; there are: clean, corrupt"),
                ("integrated_gradients", {"schedule": "mid"}, "no schedule 'mid'; there are: left, right, midpoint"),
                ("conductance", {"steps": 0}, "steps=0: a path has at least one step"),
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.unchecked
def test_a_choice_that_does_not_exist_lists_those_that_do(call: Any, said: str, llama: Any) -> None:
    basis = make(tables.BASES[0], llama)
    with pytest.raises(nvs.InputError, match=f"^{re.escape(said)}$"):
        call(llama, basis, random_scores(basis))


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
