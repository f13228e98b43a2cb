"""What the plain model computes on a batch of prompts, computed once and shared by the bases, methods and ablations of a study.

Nothing is shared outside a `with sharing(...)`, inside which the model's weights must not change. Tensors are kept in memory,
the least recently used being dropped first, and, where a folder is given, on disk, so that other runs can use them too.

The cache in force is a context variable and not an argument: the reads that it serves lie below every basis, attribution method
and ablation, whose signatures, a user's own included, would all have to pass it on. It changes no number: without a `sharing`,
for another model, and for a model with hooks on it, every read runs the model.
"""

import hashlib
import os
import stat
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any, final
from zlib import crc32

import torch
from filelock import FileLock
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuron_vs_sae.execution.memory import free_memory

Tensors = dict[str, Tensor]


@final
class Cache:
    """Tensors by what they were computed from: the model's weights, the tokens, and a name for the computation."""

    def __init__(self, model: Any, folder: Path | None, limit: float):
        self.model, self.folder, self.limit = model, folder, int(limit * 2**30)
        self.room = free_memory(next(model.parameters()).device) // 8
        self.held: OrderedDict[str, Tensors] = OrderedDict()
        self.bytes = 0
        self.computed = self.found = 0
        self.model_key = "" if folder is None else _fingerprint(model)

    def get(self, name: str, tokens: Int[Tensor, "batch pos"], make: Callable[[], Tensors]) -> Tensors:
        """`make()`, unless its tensors are held already. They are shared, so they must not be written to."""
        key = self.key(name, tokens)
        value = self.held.get(key)
        if value is None:
            value = self._read(key)
            if value is None:
                value = make()
                self.computed += 1
                self._write(key, value)
            else:
                self.found += 1
            self._hold(key, value)
        else:
            self.found += 1
            self.held.move_to_end(key)
        return value

    def key(self, name: str, tokens: Int[Tensor, "batch pos"]) -> str:
        digest = hashlib.sha256(f"{self.model_key} {name} {tuple(tokens.shape)} ".encode())
        digest.update(_bytes(tokens))
        return digest.hexdigest()

    def _hold(self, key: str, value: Tensors) -> None:
        self.held[key] = value
        self.bytes += _size(value)
        while self.bytes > self.room:
            self.bytes -= _size(self.held.popitem(last=False)[1])

    def _read(self, key: str) -> Tensors | None:
        if self.folder is None:
            return None
        file = self.folder / f"{key}.safetensors"
        device = str(next(self.model.parameters()).device)
        try:
            with safe_open(file, "pt", device=device) as stored:
                value = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
                if stored.metadata() != {"sum": _checksum(value)}:
                    raise SafetensorError("its tensors are not those that were written")
            os.utime(file)  # used now, so kept longest
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            warnings.warn(f"{file} is damaged ({error}): what it held is computed again", stacklevel=4)
            return None
        return value

    def _write(self, key: str, value: Tensors) -> None:
        if self.folder is None:
            return
        from neuron_vs_sae.core.files import write

        kept = {name: x.contiguous() for name, x in value.items()}
        write(self.folder / f"{key}.safetensors", lambda file: save_file(kept, file, {"sum": _checksum(kept)}))
        _trim(self.folder, self.limit)


_CURRENT: ContextVar[Cache | None] = ContextVar("cache", default=None)


@contextmanager
def sharing(model: Any, folder: Path | None = None, limit: float = 10.0) -> Iterator[Cache]:
    """Keep and reuse what this model computes until the end of the `with`; also on disk in `folder` (at most `limit` GiB), if given.

    Several runs may use one folder at once. What it holds is trusted: its checksums find damage, not a forger. Raises `FolderError` where it cannot be written.
    """
    cache = Cache(model, folder, limit)
    before = _CURRENT.set(cache)
    try:
        yield cache
    finally:
        _CURRENT.reset(before)


def shared(model: Any, name: str, tokens: Int[Tensor, "batch pos"], make: Callable[[], Tensors]) -> Tensors:
    """`make()`, or, inside `sharing`, what it gave before for this model, name and tokens."""
    cache = _cache_of(model)
    return make() if cache is None else cache.get(name, tokens, make)


def shared_each(
    model: Any, names: Sequence[str], tokens: Int[Tensor, "batch pos"], make: Callable[[Sequence[str]], Tensors]
) -> Tensors:
    """`make(names)`, a tensor by name; those that are held already are not computed again."""
    cache = _cache_of(model)
    if cache is None:
        return make(names)
    computed: Tensors = {}

    def tensor(name: str) -> Tensors:
        if name not in computed:
            computed.update(make([n for n in names if cache.key(n, tokens) not in cache.held]))
        return {name: computed[name]}

    return {name: cache.get(name, tokens, lambda name=name: tensor(name))[name] for name in names}


def _cache_of(model: Any) -> Cache | None:
    cache = _CURRENT.get()
    if cache is None or cache.model is not model or any(hook.fwd_hooks for hook in model.hook_dict.values()):
        return None
    return cache


def _checksum(value: Tensors) -> str:
    crc = 0
    for _, tensor in sorted(value.items()):
        crc = crc32(_bytes(tensor), crc)
    return f"{crc:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _size(value: Tensors) -> int:
    return sum(x.numel() * x.element_size() for x in value.values())


def _fingerprint(model: Any) -> str:
    """A hash of every weight, of the model's settings, and of the versions of the code that computes with them."""
    digest = hashlib.sha256()
    for package in ("neuron_vs_sae", "torch", "transformer-lens"):
        digest.update(f"{package} {version(package)} ".encode())
    digest.update(
        f"{type(model).__name__} {next(model.parameters()).device.type} {sorted(model.cfg.to_dict().items(), key=str)}".encode()
    )
    for name, tensor in model.state_dict().items():
        digest.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


_ABANDONED = 3600.0
"""Seconds after which a half-written file is a killed run's: none takes as long to write."""


def _trim(folder: Path, limit: int) -> None:
    """Remove the least recently used until all that lies in the folder takes no more than `limit` bytes.

    Only this cache's own files are removed; others count.
    """
    with FileLock(folder / ".lock"):
        files = []
        for file in folder.rglob("*"):
            try:
                known = file.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(known.st_mode):
                files.append((known.st_mtime, known.st_size, file))
        total = sum(size for _, size, _ in files)
        for modified, size, file in sorted(files):
            abandoned = file.suffix == ".partial" and modified < time.time() - _ABANDONED
            if abandoned or (total > limit and file.suffix == ".safetensors" and file.parent == folder):
                file.unlink(missing_ok=True)
                total -= size
