"""Whether an SAE belongs to this model and site: by its configuration, and by its weights."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.reading import PER_TOKEN
from neuron_vs_sae.catalog.dictionaries.sources import Candidate
from neuron_vs_sae.core.basis import Site
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.presets import same_model


def check_configuration(
    candidate: Candidate, site: Site, width: dict[str, int], model: Any, any_model: bool, centred: bool
) -> None:
    """Raises `InputError` where the configuration says that the SAE is of another model, site, width or weight processing."""
    label, cfg = candidate.name, candidate.cfg
    theirs = cfg.metadata.model_name
    if theirs and not any_model and not same_model(theirs, model.cfg.model_name):
        raise InputError(
            f"SAE {label} was trained on model '{theirs}', not on '{model.cfg.model_name}': use that model's SAEs, or say "
            "any_model=true if you mean it (a base model's SAEs on its chat version)"
        )
    if cfg.architecture() == "temporal":
        raise InputError(
            f"SAE {label} is a temporal SAE: its units depend on earlier tokens, so it is not a basis of a site"
        )
    read_width, written_width = (
        (width[site.reads], width[site.writes]) if site.head is None else (model.cfg.d_head, model.cfg.d_head)
    )
    d_out = getattr(cfg, "d_out", cfg.d_in)
    if (cfg.d_in, d_out) != (read_width, written_width):
        raise InputError(
            f"SAE {label} takes {cfg.d_in} and writes {d_out} dimensions, but {site.reads} of the model has {read_width} and "
            f"{site.writes} {written_width}: it is an SAE of another model or another site"
        )
    wanted = bool((cfg.metadata.model_from_pretrained_kwargs or {}).get("center_writing_weights"))
    if centred and not wanted:
        raise InputError(
            f"SAE {label} was trained on raw weights, and this model's are centred, so their activations differ: load the model "
            "without process_weights"
        )
    if wanted and not centred:
        raise InputError(
            f"SAE {label} was trained on centred weights (center_writing_weights), and this model's are not, so their "
            "activations differ: load the model with process_weights=True (--process-weights)"
        )


def check_weights(sae: Any, label: str) -> None:
    """Checks what is known only once an SAE is loaded, when sae-lens folds some normalisations. Raises `InputError`."""
    cfg = sae.cfg
    if cfg.normalize_activations not in ("none", *PER_TOKEN):
        raise InputError(
            f"SAE {label} has normalize_activations='{cfg.normalize_activations}', which is not in its weights: fold it first "
            "(sae.fold_activation_norm_scaling_factor or sae.fold_activation_whitening of sae-lens) and save it again"
        )
    bad = [n for n, p in sae.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"SAE {label} has NaN or infinite values in {', '.join(bad)}: its file is damaged")


def is_centred(model: Any) -> bool:
    """Whether what writes to the residual stream has mean 0 over its coordinates."""
    written = model.W_E[:1000].double()  # of some tokens: a vocabulary can be of gigabytes
    return bool(written.mean(-1).abs().max() < 1e-4 * written.abs().max())
