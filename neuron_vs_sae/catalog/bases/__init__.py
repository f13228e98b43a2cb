"""One basis per file, found by its name: `(model, *, options) -> Basis`.

Options that several take: `source` (where SAEs come from), `site` (a kind of hook, `hook_mlp_out`), `layers` ("2", "0-3"),
`prompts` (pairs to fit or calibrate on; a study passes its discovery pairs).
"""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.lookup import find, known

# Set here, all at once: importing `bases.x` by itself would leave the module, not its function, under that name.
globals().update({name.replace("-", "_"): find("bases", name) for name in known("bases")})


def __getattr__(name: str) -> Callable[..., Any]:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(known('bases'))}")
