"""Dictionaries that do not all fit in memory: read when they are used, the least recently used given up."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.unit_wise import UnitWise


class Shelf:
    """Room for dictionaries of so many GiB together, which the bases of a study share.

    One that is on it is read once. Where they do not all fit, each pass over the layers reads again what was given up.
    """

    def __init__(self, gib: float):
        if not gib > 0:
            raise InputError(f"max_memory={gib}: dictionaries need room (--max-memory, in GiB)")
        self.gib = gib
        self._held: OrderedDict[Hashable, tuple[Dictionary, int]] = OrderedDict()

    @property
    def held(self) -> int:
        """Bytes of what is on it."""
        return sum(size for _, size in self._held.values())

    def get(self, key: Hashable, size: int, read: Callable[[], Dictionary]) -> Dictionary:
        """The dictionary of that key, of `size` bytes; `read` if it is not there, after room has been made.

        Raises `InputError` for one that is larger than the shelf.
        """
        room = int(self.gib * 2**30)
        if size > room:
            raise InputError(
                f"a dictionary of {size / 2**30:.2g} GiB does not fit in the {self.gib:.2g} GiB that dictionaries may take "
                "(--max-memory): allow more, or choose narrower SAEs"
            )
        if key not in self._held:
            while self.held + size > room:
                self._held.popitem(last=False)
            self._held[key] = (read(), size)
        self._held.move_to_end(key)
        return self._held[key][0]


class Streamed(Dictionary):
    """A dictionary by its place on a shelf: the same numbers as itself, whether or not it is there at the moment."""

    def __init__(self, shelf: Shelf, key: Hashable, size: int, read: Callable[[], Dictionary]):
        self._get = lambda: shelf.get(key, size, read)
        first = self._get()
        self.width, self.d, self.lossless = first.width, first.d, first.lossless

    @property
    def unit_wise(self) -> UnitWise | None:  # type: ignore[override]
        return self._get().unit_wise

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self._get().encode(y)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return self._get().encode_some(y, units)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return self._get().decode(units)

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return self._get().at_zero(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self._get().directions(units)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return self._get().pull_back(gradient)
