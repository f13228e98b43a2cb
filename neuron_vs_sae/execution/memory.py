"""How much memory tensors take while something runs, and how much is free."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes that tensors created by `work` hold at any one time; tensors that existed before do not count."""
    with _Counting() as counting:
        kept = work()  # what it returns lives to its end
        del kept
    return counting.peak


class _Counting(TorchDispatchMode):
    """Sees every tensor that an operation returns, and is told when its memory is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {x.untyped_storage().data_ptr() for x in _dense((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for x in _dense(out):
            if x.untyped_storage().data_ptr() not in before:  # not a view, nor in place
                self._made(x.untyped_storage())
        return out

    def _made(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def _dense(tree: Any) -> list[Tensor]:
    """The dense tensors in it; a sparse tensor holds no memory beyond that of its dense parts."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor) and x.layout == torch.strided]


def free_memory(device: torch.device) -> int:
    """Bytes free on the device (4 GiB where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30
