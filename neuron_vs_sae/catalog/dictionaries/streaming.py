"""Dictionaries that bases share, and dictionaries that do not all fit in memory and are read when they are used."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, final
from weakref import WeakValueDictionary

from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.unit_wise import UnitWise

Read = Callable[[], tuple[Dictionary, dict[str, Any]]]
"""Reads a dictionary: (itself, where it came from)."""


class Shelf:
    """The dictionaries that the bases of a study share, each read once.

    With `gib` they may take that many GiB together: where they do not all fit, the least recently used are dropped, and each pass
    over the layers reads those again. Without it, a dictionary stays as long as a basis uses it.
    """

    def __init__(self, gib: float | None = None):
        if gib is not None and not gib > 0:
            raise InputError(f"max_memory={gib}: dictionaries need room (--max-memory, in GiB)")
        self.gib = gib
        self._in_use: WeakValueDictionary[Hashable, Dictionary] = WeakValueDictionary()
        self._held: OrderedDict[Hashable, tuple[Dictionary, int]] = OrderedDict()
        self._came_from: dict[Hashable, dict[str, Any]] = {}

    @property
    def held(self) -> int:
        """Bytes of the dictionaries that it holds."""
        return sum(size for _, size in self._held.values())

    def take(self, key: Hashable, size: int, read: Read) -> tuple[Dictionary, dict[str, Any]]:
        """(the dictionary of that key, for a basis to keep; where it came from). `size` is in bytes.

        Where the room is limited, the dictionary is `Streamed`: it stands for whichever copy is loaded when it is used.
        Raises `InputError` for one that is larger than the room.
        """
        if self.gib is not None:
            streamed = Streamed(self, key, size, read)
            return streamed, self._came_from[key]
        dictionary = self._in_use.get(key)
        if dictionary is None:
            dictionary = self._in_use[key] = self._read(key, read)
        return dictionary, self._came_from[key]

    def get(self, key: Hashable, size: int, read: Read) -> Dictionary:
        """The dictionary of that key: the copy that is held, or a new one, read after room has been made for it.

        Raises `InputError` for a dictionary that is larger than the room, and for one that has changed since it was first read.
        """
        room = int((self.gib or 0) * 2**30)
        if size > room:
            raise InputError(
                f"a dictionary of {size / 2**30:.2g} GiB does not fit in the {self.gib or 0:.2g} GiB that dictionaries may take "
                "(--max-memory): allow more, or choose narrower SAEs"
            )
        if key not in self._held:
            while self.held + size > room:
                self._held.popitem(last=False)
            self._held[key] = (self._read(key, read), size)
        self._held.move_to_end(key)
        return self._held[key][0]

    def _read(self, key: Hashable, read: Read) -> Dictionary:
        dictionary, came_from = read()
        if self._came_from.setdefault(key, came_from) != came_from:
            raise InputError(
                f"SAE {came_from.get('name', '')} has changed while it was in use: its files are not those that were read first"
            )
        return dictionary


@final
class Streamed(Dictionary):
    """A dictionary by its key on a shelf: it gives the same numbers whether or not it is in memory at the moment."""

    def __init__(self, shelf: Shelf, key: Hashable, size: int, read: Read):
        self._get = lambda: shelf.get(key, size, read)
        first = self._get()
        self.width, self.d, self.lossless = first.width, first.d, first.lossless

    def unit_wise(self) -> UnitWise | None:
        return self._get().unit_wise()

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

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return self._get().written(values, units)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return self._get().pull_back(gradient)

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        return self._get().pull_back_some(gradient, row, unit)

    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        return self._get().reading(y, units)
