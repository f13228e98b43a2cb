"""What the record says of a basis is found by its text, whatever other texts end with."""

import copy
from pathlib import Path
from typing import Any

import neuron_vs_sae as nvs
from neuron_vs_sae.report.caption import dictionaries
from neuron_vs_sae.report.saebench import outputs

SAES = "sae:saes/rotation"


def named_alike(evident: Any) -> nvs.Result:
    """A control called `rotation`, and SAEs in a folder of that name."""
    neurons, saes = evident.study.basis
    names = {neurons: "rotation", saes: SAES}
    record = copy.deepcopy(evident.record)
    record["study"]["basis"] = list(names.values())
    record["bases"] = {
        task: {names[text]: facts for text, facts in bases.items()} for task, bases in evident.record["bases"].items()
    }
    tables = [table.assign(basis=table["basis"].map(names)) for table in (evident.curves, evident.summary)]
    return nvs.Result(Path(), record, *tables)


def test_a_control_is_not_given_the_caption_of_saes_in_a_folder_of_its_name(evident: Any) -> None:
    captions = dictionaries(named_alike(evident))
    assert list(captions) == [SAES]
    assert captions[SAES].startswith("2 standard dictionaries, 20 units each, at hook_mlp_out")


def test_an_export_has_one_file_for_the_saes_and_none_for_the_control(evident: Any) -> None:
    exported = outputs(named_alike(evident))
    assert len(exported) == 1
    ((_, output),) = exported.items()
    assert output.sae_cfg_dict is not None
    assert len(output.sae_cfg_dict) == 2


def test_what_a_basis_is_made_of_is_told_once_for_all_tasks(evident: Any) -> None:
    record = copy.deepcopy(evident.record)
    ((task, bases),) = evident.record["bases"].items()
    record["bases"] = {task: bases, "other": copy.deepcopy(bases)}
    found = nvs.Result(Path(), record, evident.curves, evident.summary)
    assert list(found.bases) == list(evident.study.basis)
    assert found.bases == bases
