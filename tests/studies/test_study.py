"""A study is its fields: each one counts, each has one spelling, and what is wrong is said in the user's words."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from settings import BASE, OTHER

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, check, find, known, parse, summary, takes
from neuron_vs_sae.running.analyses import ANALYSES, analysis_called
from neuron_vs_sae.studies.spec import make_spec
from neuron_vs_sae.studies.study import Study, load_config, make_study, with_defaults


def refused(settings: dict[str, Any], origin: str = "study.toml") -> str:
    with pytest.raises(InputError) as caught:
        make_study({**BASE, **settings}, origin)
    return str(caught.value)


def test_every_field_has_an_alternative_here() -> None:
    assert set(OTHER) == set(Study.model_fields), "a new field of Study needs another valid value in OTHER"


@pytest.mark.parametrize("field", OTHER)
def test_every_field_changes_the_key(field: str) -> None:
    assert make_study({**BASE, field: OTHER[field]}).key != make_study(BASE).key


def test_no_two_fields_change_the_key_alike() -> None:
    keys = {make_study({**BASE, field: value}).key for field, value in OTHER.items()}
    assert len(keys) == len(OTHER)


def test_a_study_is_what_its_json_says() -> None:
    study = make_study({**BASE, **OTHER})
    again = Study(**study.model_dump(mode="json"))
    assert again == study
    assert again.key == study.key


def test_a_study_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_study(BASE).seed = (1,)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"basis": "mlp-neurons"}, {"basis": ["mlp_neurons"]}),
        ({"basis": "random-sae:DIR@hook_mlp_out,seed=1"}, {"basis": "random_sae:DIR,site=hook_mlp_out,seed=1"}),
        ({"method": "attribution-patching"}, {"method": "attribution_patching"}),
        ({"ablation": "zero-site"}, {"ablation": ["zero_site"]}),
        ({"metric": "logit-difference"}, {}),
        ({"sizes": "1, 2,all"}, {"sizes": [1, "2", "all"]}),
        ({"sizes": 5}, {"sizes": "5"}),
        ({"seed": 3}, {"seed": [3]}),
        ({"eval_task": "a.jsonl"}, {"eval_task": ["a.jsonl"]}),
    ],
)
def test_one_thing_has_one_key_however_it_is_spelled(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert make_study({**BASE, **one}).key == make_study({**BASE, **other}).key


def test_sizes_are_numbers_and_names() -> None:
    assert make_study({**BASE, "sizes": "10, 5,all"}).sizes == (10, 5, "all")


def test_attribution_explains_the_metric_unless_told_otherwise() -> None:
    assert make_study({**BASE, "metric": "probability"}).explained_metric == "probability"
    assert make_study({**BASE, "metric": "kl"}).explained_metric == "logit_difference"  # kl's gradient is zero
    assert make_study({**BASE, "metric": "kl", "attribution_metric": "kl"}).explained_metric == "kl"


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"basis": "mlp_neuron"}, ["no basis 'mlp_neuron'; there are:", "mlp_neurons", "sae"]),
        ({"method": "ig"}, ["no attribution method 'ig'; there are:", "integrated_gradients", "relp"]),
        ({"ablation": "zero"}, ["no ablation 'zero'; there are:", "zero_site", "zero_units"]),
        ({"metric": "loss"}, ["no metric 'loss'; there are:", "logit_difference"]),
        ({"attribution_metric": "loss"}, ["no metric 'loss'; there are:"]),
        ({"task": "sva"}, ["no task 'sva'; there are:", "from_file"]),
        ({"eval_task": "sva"}, ["no task 'sva'; there are:"]),
        ({"errors": "drop"}, ["'errors'", "'nodes', 'keep', 'ablate' or 'resid_only'", "given: 'drop'"]),
        ({"rank_by": "size"}, ["study.toml, 'rank_by'", "'absolute' or 'signed'", "given: 'size'"]),
        ({"examples": "ten"}, ["study.toml, 'examples'", "valid integer", "given: 'ten'"]),
        ({"examples": 0}, ["'examples'", "greater than or equal to 1", "given: 0"]),
        ({"confidence": 95}, ["'confidence'", "less than 1", "given: 95"]),
        ({"prepend_bos": "perhaps"}, ["'prepend_bos'", "valid boolean", "given: 'perhaps'"]),
        ({"sizes": "1,some"}, ["size 'some' is neither a number of nodes nor one of 'all', 'log', 'mib'"]),
        ({"sizes": [-1]}, ["size '-1' is neither"]),
        ({"sizes": 1.5}, ["size '1.5' is neither"]),
        ({"sizes": []}, ["'sizes'", "at least 1 item"]),
        ({"task": []}, ["'task'", "at least 1 item"]),
        ({"task": 3}, ["'task'", "valid string", "given: 3"]),
        ({"model": ""}, ["'model'", "at least 1 character"]),
        ({"bases": "x", "sede": 1}, ["study.toml has no setting 'bases'; there are: model,", "no setting 'sede'"]),
        ({"eval_task": ["a.jsonl", "b.jsonl"]}, ["2 evaluation files for 1 tasks: give one for each (--eval-task)"]),
        ({"basis": ["mlp_neurons", "mlp-neurons"]}, ["basis 'mlp_neurons' is given twice"]),
        ({"task": ["a.jsonl", "a.jsonl"]}, ["task 'a.jsonl' is given twice"]),
        ({"errors": ["keep", "keep"]}, ["errors 'keep' is given twice"]),
        ({"seed": [1, 2, 1]}, ["seed 1 is given twice"]),
        ({"seed": [0, -1]}, ["'seed'", "greater than or equal to 0", "given: -1"]),
        ({"seed": []}, ["'seed'", "at least 1 item"]),
        ({"basis": "sae:A,source=B"}, ["option 'source' is given twice (in 'sae:A,source=B')"]),
        ({"method": "relp,steps"}, ["cannot read attribution method 'relp,steps'", "NAME[:SOURCE]"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(settings: dict[str, Any], parts: list[str]) -> None:
    message = refused(settings)
    for part in parts:
        assert part in message
    assert "\n" not in message


def test_a_wrong_item_of_a_list_is_reported_once() -> None:
    assert refused({"basis": ["nope"]}).endswith("transcoder")


def test_what_is_missing_is_named_and_described() -> None:
    with pytest.raises(InputError) as caught:
        make_study({}, "the command line")
    for name in ("model", "task", "basis"):
        assert f"the command line lacks '{name}' ({Study.model_fields[name].description})" in str(caught.value)


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config file .*none.toml cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"config file .* cannot be read: it is a folder"):
        load_config(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = = 1")
    with pytest.raises(InputError, match=r"broken.toml is not TOML: .*line 1, column 8"):
        load_config(broken)
    broken.write_bytes(b"model = '\xff'")
    with pytest.raises(InputError, match=r"broken.toml is not TOML: .*utf-8"):
        load_config(broken)


# A name to the function of that name.

FOLDERS = ("bases", "attribution", "tasks", "metrics", "ablation")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_holds_a_described_function_of_its_name(folder: str) -> None:
    assert known(folder)
    for name in known(folder):
        function, stem = find(folder, name), name.replace("-", "_")
        assert callable(function)
        assert function.__name__ == stem
        assert function.__module__.startswith(f"neuron_vs_sae.catalog.{folder}.")
        assert summary(folder, name)
        assert getattr(import_module(f"neuron_vs_sae.catalog.{folder}"), stem) is function


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_unknown_name_lists_the_known_ones(folder: str) -> None:
    with pytest.raises(InputError) as caught:
        check(folder, "nonesuch")
    assert str(caught.value).endswith(f"'nonesuch'; there are: {', '.join(known(folder))}")
    with pytest.raises(AttributeError, match="there are: "):
        _ = import_module(f"neuron_vs_sae.catalog.{folder}").nonesuch


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_hyphen_is_an_underscore(folder: str) -> None:
    for name in known(folder):
        assert find(folder, name.replace("_", "-")) is find(folder, name)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("mlp_neurons", "mlp_neurons", {}),
        ("sae:DIR", "sae", {"source": "DIR"}),
        ("sae:/a b/c:d,e", "sae", {"source": "/a b/c:d,e"}),
        ("sae:REL/blocks.0.hook@hook_mlp_out", "sae", {"source": "REL/blocks.0.hook", "site": "hook_mlp_out"}),
        ("sae:/home/me@host/saes", "sae", {"source": "/home/me@host/saes"}),
        ("sae:/home/me@host/saes@attn.hook_z", "sae", {"source": "/home/me@host/saes", "site": "attn.hook_z"}),
        ("rotation@hook_mlp_out,seed=3", "rotation", {"site": "hook_mlp_out", "seed": "3"}),
        ("pca,n=5,layers=0-3", "pca", {"n": "5", "layers": "0-3"}),
        ("sae,source=a=b", "sae", {"source": "a=b"}),
    ],
)
def test_a_text_is_a_name_and_its_options(text: str, name: str, options: dict[str, str]) -> None:
    spec = parse("bases", text)
    assert (spec.name, spec.options) == (name, options)
    assert parse("bases", str(spec)) == spec


def test_options_have_the_types_of_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(model: Any, *, steps: int = 1, share: float = 0.5, deep: bool = False, seed: int = 0) -> Any:
        return model, steps, share, deep, seed

    monkeypatch.setattr(import_module("neuron_vs_sae.catalog.bases.pca"), "pca", made)
    assert bound("bases", "pca,steps=3,share=0.25,deep=true", seed=4)("m") == ("m", 3, 0.25, True, 4)
    assert bound("bases", "pca,seed=9", seed=4, unheard_of=1)("m") == ("m", 1, 0.5, False, 9)
    with pytest.raises(InputError, match=r"'pca,steps=x': steps='x' is wrong: Input should be a valid integer"):
        bound("bases", "pca,steps=x")
    with pytest.raises(
        InputError, match=r"basis 'pca' has no option 'step' .*'pca,step=1'.* it takes: steps, share, deep, seed"
    ):
        bound("bases", "pca,step=1")


def test_options_of_the_whole_study_cannot_be_set_for_a_part_of_it() -> None:
    """They would not be what the results say of them."""
    for option in ("positions=pooled", "pairing=unpaired", "batch_size=1"):
        with pytest.raises(InputError, match=r"method 'relp' has no option '.*' of its own .*it takes: none"):
            bound("attribution", f"relp,{option}")
    with pytest.raises(InputError, match="no option 'prompts' of its own"):
        bound("bases", "pca,prompts=x")


def test_what_a_function_needs_is_asked_for() -> None:
    with pytest.raises(InputError, match="task 'world' needs source"):
        bound("tasks", "world")
    with pytest.raises(InputError, match=r"basis 'random_sae' needs prompts"):
        bound("bases", "random_sae:DIR")
    with pytest.raises(InputError, match="task 'from_file' needs path"):
        bound("tasks", "from_file")


def test_fitted_bases_are_known_by_the_prompts_they_take() -> None:
    assert takes("bases", "random_sae:DIR", "prompts")
    assert not takes("bases", "sae:DIR", "prompts")


@pytest.mark.parametrize("analysis", ANALYSES)
def test_the_default_study_gives_every_analysis_settings_that_it_takes(analysis: str) -> None:
    """Its tasks, bases and prompts where these are common to all; its methods and ablations are of circuits alone."""
    kind = analysis_called(analysis).spec
    settings = with_defaults({}, kind)
    spec = make_spec(kind, settings)
    assert spec.model == "default"
    assert settings.keys() <= {"model", "task", "basis", "examples", "eval_examples"} or kind is Study
