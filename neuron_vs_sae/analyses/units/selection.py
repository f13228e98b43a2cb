"""Which units of a basis are examined: by name, at random, or those of a circuit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError

_NAME = re.compile(r"(?P<site>.+)/(?P<unit>\d+)(@\d+)?")


@dataclass(frozen=True, eq=False)
class Units:
    """Some units of a basis, site by site in its order; within a site in the order in which they were asked for."""

    basis: str
    sites: tuple[str, ...]
    at: tuple[Int[Tensor, " _"], ...]

    def __len__(self) -> int:
        return sum(len(units) for units in self.at)

    @property
    def names(self) -> tuple[str, ...]:
        """`blocks.3.mlp.hook_post/1207`, the name of a pooled node."""
        return tuple(
            f"{site}/{unit}" for site, units in zip(self.sites, self.at, strict=True) for unit in units.tolist()
        )

    @property
    def site(self) -> Int[Tensor, " units"]:
        """The site of each unit, counted from 0."""
        return torch.repeat_interleave(torch.arange(len(self.at)), torch.tensor([len(units) for units in self.at]))

    @property
    def unit(self) -> Int[Tensor, " units"]:
        """The number of each unit within its dictionary."""
        return torch.cat(self.at)


def named(basis: Basis, names: Sequence[str]) -> Units:
    """The units of these names, each once; a position (`...@5`) is left off, and error nodes (`.../error`) are no units.

    Raises `InputError` for a name that is no unit of the basis, and where there is none.
    """
    sites = [site.name for site in basis.sites]
    chosen: list[dict[int, None]] = [{} for _ in sites]
    for name in names:
        if re.fullmatch(r".+/error(@\d+)?", name):
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(f"cannot read unit {name!r}: a unit is written SITE/NUMBER, as {sites[0]}/0")
        if match["site"] not in sites:
            raise InputError(f"basis '{basis.name}' has no site {match['site']!r}; it has: {', '.join(sites)}")
        s, unit = sites.index(match["site"]), int(match["unit"])
        if unit >= basis.dictionaries[s].width:
            raise InputError(f"no unit {name!r}: {match['site']} has units 0 to {basis.dictionaries[s].width - 1}")
        chosen[s][unit] = None
    return _units(basis, [list(units) for units in chosen])


def drawn(basis: Basis, n: int, seed: int = 0) -> Units:
    """`n` units, each site's share of them as equal as can be, drawn uniformly within sites."""
    widths = [dictionary.width for dictionary in basis.dictionaries]
    if not 1 <= n <= sum(widths):
        raise InputError(f"{n} units are asked of basis '{basis.name}', which has {sum(widths)}")
    shares = [0] * len(widths)
    for _ in range(n):
        open_sites = [s for s, width in enumerate(widths) if shares[s] < width]
        shares[min(open_sites, key=lambda s: (shares[s], s))] += 1
    generator = torch.Generator().manual_seed(seed)
    return _units(
        basis,
        [
            torch.randperm(width, generator=generator)[:share].sort().values.tolist()
            for width, share in zip(widths, shares, strict=True)
        ],
    )


def _units(basis: Basis, chosen: Sequence[Sequence[int]]) -> Units:
    if not any(chosen):
        raise InputError(
            f"no unit of basis '{basis.name}' is asked for: name some (--unit), or take a circuit's (--circuit)"
        )
    return Units(
        basis=basis.name,
        sites=tuple(site.name for site in basis.sites),
        at=tuple(torch.tensor(units, dtype=torch.long) for units in chosen),
    )
