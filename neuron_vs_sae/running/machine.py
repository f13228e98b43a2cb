"""What runs a study. Light to import; every field is an option of the command line."""

from dataclasses import dataclass, field
from pathlib import Path

from neuron_vs_sae.core.conventions import Engine


@dataclass(frozen=True)
class Machine:
    """What runs a study without changing its numbers beyond rounding: devices, memory, cache, permission, and engine."""

    device: str | None = field(
        default=None, metadata={"description": "cpu, cuda, cuda:1 ... [cuda where there is one]"}
    )
    n_devices: int = field(default=1, metadata={"description": "GPUs that share the model's layers", "min": 1})
    batch_size: int = field(default=64, metadata={"description": "pairs per pass; changes no number", "min": 1})
    max_memory: float | None = field(
        default=None,
        metadata={
            "description": "GiB for all SAEs and transcoders; those that do not fit are read again when used [no limit]"
        },
    )
    cache: Path | None = field(
        default=None,
        metadata={"description": "folder that keeps the model's activations on a task's prompts for other runs"},
    )
    cache_limit: float = field(
        default=10.0,
        metadata={"description": "GiB that --cache may hold; the least recently used are dropped", "min": 0},
    )
    trust_remote_code: bool = field(
        default=False, metadata={"description": "allow a model's own code, or pickles, to run"}
    )
    engine: Engine = field(
        default="fast",
        metadata={"description": "fast, or exact: every dictionary whole (slow; numbers differ by rounding)"},
    )
