"""One basis per file, found by its name: `(model, *, options) -> Basis`.

Options that several take: `source` (where SAEs come from) and `select` (which of them), or `site` (a kind of hook,
`hook_mlp_out`) and `layers` ("2", "0-3"); and `prompts` (pairs to fit or calibrate on; a study passes its discovery pairs).
"""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lookup import open_folder

if TYPE_CHECKING:
    from neuron_vs_sae.catalog.bases.attention import attention as attention
    from neuron_vs_sae.catalog.bases.mlp_neurons import mlp_neurons as mlp_neurons
    from neuron_vs_sae.catalog.bases.mlp_outputs import mlp_outputs as mlp_outputs
    from neuron_vs_sae.catalog.bases.pca import pca as pca
    from neuron_vs_sae.catalog.bases.random_sae import random_sae as random_sae
    from neuron_vs_sae.catalog.bases.residual import residual as residual
    from neuron_vs_sae.catalog.bases.rotation import rotation as rotation
    from neuron_vs_sae.catalog.bases.sae import sae as sae
    from neuron_vs_sae.catalog.bases.transcoder import transcoder as transcoder

NOUN = "basis"
COMMON = frozenset({"batch_size", "model", "prompts", "shelf"})
SEVERAL: dict[str, tuple[str, ...]] = {}

open_folder(__name__)
