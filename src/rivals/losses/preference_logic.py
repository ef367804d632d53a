"""Preference losses as logic: what must be true of which response, counted over all ways the model may judge them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.lists import compute_dtype
from rivals.losses._common import (
    Reduction,
    check_finite,
    check_mask,
    check_reduction,
    check_scores,
    check_shape,
    reduce_lists,
)
from rivals.losses._preference_scores import SURE, check_not_above_zero
from rivals.losses._preference_structures import link_loss
from rivals.losses._truth_tables import formula_text
from rivals.losses.preference_forms import Link, PreferenceForm

__all__ = [
    "PREFERENCE_STRUCTURES",
    "PreferenceStructure",
    "decompile_preference",
    "preference_formulas",
    "preference_structure_loss",
    "preference_structures",
]

_SYMBOLS = {(True, True): "x", (True, False): "t", (False, True): "b", (False, False): "-"}
_ROWS = {symbol: row for row, symbol in _SYMBOLS.items()}


@dataclass(frozen=True)
class PreferenceStructure:
    """Two truth tables over n atoms "the model deems this response valid": rows in favour (top) and against (bottom).

    Rows run over the atoms' values, true before false, the last atom fastest: for winner and loser TT, TF, FT, FF.

    Source: Richardson et al. (2024), Understanding the logic of direct preference alignment, section 4. Paper 95.

    Raises RivalsError: tables that are not of the same length 2^n, or a table without a row.

    >>> structure = PreferenceStructure.from_rows("xtb-")
    >>> structure.atoms, structure.top, structure.rows
    (2, (True, True, False, False), 'xtb-')
    """

    top: tuple[bool, ...]
    bottom: tuple[bool, ...]

    def __post_init__(self) -> None:
        size = len(self.top)
        if len(self.bottom) != size or size < 2 or size & (size - 1) or size > 1 << 16:
            raise RivalsError(
                f"top and bottom must have the same length, a power of 2 up to 2^16; got {size} and {len(self.bottom)}"
            )
        if not (any(self.top) and any(self.bottom)):
            raise RivalsError("top and bottom must each have a row; a loss without either cannot be minimised")

    @classmethod
    def from_rows(cls, rows: str) -> PreferenceStructure:
        """Read one letter a row: t top, b bottom, x both, - neither."""
        if not set(rows) <= set(_ROWS):
            raise RivalsError(f"rows must consist of t, b, x and -; got {rows!r}")
        return cls(tuple(_ROWS[row][0] for row in rows), tuple(_ROWS[row][1] for row in rows))

    @property
    def atoms(self) -> int:
        """The number of atoms."""
        return len(self.top).bit_length() - 1

    @property
    def rows(self) -> str:
        """One letter a row, as `from_rows` reads them."""
        return "".join(_SYMBOLS[row] for row in zip(self.top, self.bottom, strict=True))

    @property
    def core(self) -> tuple[bool, ...]:
        """The truth table of the formula P that the loss makes true: bottom implies top."""
        return tuple(top or not bottom for top, bottom in zip(self.top, self.bottom, strict=True))

    @property
    def condition(self) -> tuple[bool, ...]:
        """The truth table of the constraint C: rows outside it count on neither side. (P or A) and C is top."""
        return tuple(top or bottom for top, bottom in zip(self.top, self.bottom, strict=True))

    @property
    def additive(self) -> tuple[bool, ...]:
        """The truth table of A, the rows that count on both sides. (not P or A) and C is bottom."""
        return tuple(top and bottom for top, bottom in zip(self.top, self.bottom, strict=True))

    def entails(self, other: PreferenceStructure) -> bool:
        """Whether this structure demands at least as much, so that its loss is never below the other's."""
        if self.atoms != other.atoms:
            raise RivalsError(f"structures must have the same atoms; got {self.atoms} and {other.atoms}")
        return all(o or not s for s, o in zip(self.top, other.top, strict=True)) and all(
            s or not o for s, o in zip(self.bottom, other.bottom, strict=True)
        )


def preference_structure_loss(
    logps: Tensor,
    structure: PreferenceStructure,
    mask: Tensor | None = None,
    *,
    ref_logps: Tensor | None = None,
    link: Link = "logistic",
    beta: float = 1.0,
    margin: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The loss a preference structure stands for: how much likelier its top rows are than its bottom rows.

    Formula:
        L = link(beta rho - margin), rho = log count(top) - log count(bottom); count(rows) = sum over the rows of the
        product of p_i (atom i true) or 1 - p_i (false), p = exp(logps). With ref_logps, rho(ref) is subtracted from
        rho. The links are those of margins in `preference_loss`: "logistic" softplus(-z), "hinge", "square" and so on.

    Shapes:
        logps, ref_logps float[..., n], one log-probability an atom; mask bool[...], True = the example is there ->
        scalar, or float[...] with reduction="none".

    When to use:
        To try a preference loss of one's own, or to see what a known one demands. Sequence probabilities are tiny:
        mean log-probabilities per token (logp / length) make the products of 1 - p matter.

    Relations:
        Atoms (winner, loser): PREFERENCE_STRUCTURES["ce"] with beta 1 is -log p_w; "cpo" is `preference_loss` with
        score="log_prob", with ref_logps DPO; "orpo" is score="log_odds" up to its factor beta.

    Source:
        Richardson et al. (2024), sections 3 and 4 (weighted model counting). Paper 95. Probabilities above
        1 - 1e-7 are taken as that: 1 - p has an infinite gradient at p = 1.

    Raises:
        RivalsError: shapes that do not fit, values that are not finite or log-probabilities above 0, beta <= 0, a
        link that takes no single margin, an unknown reduction.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.6, 0.3]])
        >>> preference_structure_loss(p.log(), PREFERENCE_STRUCTURES["uncpo"])  # O(2^n) for each example
        tensor(0.1278)
    """
    check_reduction(reduction)
    form = PreferenceForm(structure="pairs", link=link, beta=beta, margin=margin)
    if link == "apo_down":
        raise RivalsError("link='apo_down' needs the scores of two responses; take another")
    check_scores(logps, "logps")
    check_shape(logps, (*logps.shape[:-1], structure.atoms), "logps", logps.device)
    there = torch.ones(logps.shape[:-1], dtype=torch.bool, device=logps.device) if mask is None else mask
    check_mask(there, logps[..., 0], "mask")
    rho = _log_ratio(logps, structure, there, "logps")
    if ref_logps is not None:
        check_shape(ref_logps, tuple(logps.shape), "ref_logps", logps.device)
        rho = rho - _log_ratio(ref_logps.detach().to(logps.dtype), structure, there, "ref_logps")
    loss = link_loss(form, beta * rho - margin)
    return reduce_lists(loss.masked_fill(~there, 0.0), there, reduction)


def decompile_preference(top: Callable[..., float], bottom: Callable[..., float], atoms: int) -> PreferenceStructure:
    """Read the structure off the two polynomials of a loss's core ratio log(top / bottom).

    top and bottom are functions of `atoms` probabilities, linear in each and 0 or 1 wherever every probability is 0 or
    1; those 2^n values are the truth tables.

    Source: Richardson et al. (2024), algorithm 1; evaluating at the corners replaces its rewriting rules. Paper 95.

    Raises RivalsError: a polynomial that is not linear in an argument, or neither 0 nor 1 at a corner.

    >>> decompile_preference(lambda w, lo: w * (1 - lo), lambda w, lo: lo * (1 - w), 2).rows
    '-tb-'
    """
    tables = []
    for name, polynomial in (("top", top), ("bottom", bottom)):
        corners = [float(polynomial(*corner)) for corner in itertools.product((1.0, 0.0), repeat=atoms)]
        if any(min(abs(value), abs(value - 1)) > 1e-9 for value in corners):
            raise RivalsError(f"{name} must be 0 or 1 wherever every probability is 0 or 1; got {corners}")
        for atom in range(atoms):
            for rest in itertools.product((0.3, 0.9), repeat=atoms - 1):
                low, middle, high = (polynomial(*rest[:atom], value, *rest[atom:]) for value in (0.0, 0.5, 1.0))
                if abs(low - 2 * middle + high) > 1e-9:
                    raise RivalsError(f"{name} must be linear in each probability; it is not in argument {atom}")
        tables.append(tuple(value > 0.5 for value in corners))
    return PreferenceStructure(*tables)


def preference_formulas(structure: PreferenceStructure, names: Sequence[str] = ()) -> tuple[str, str, str]:
    """Write a structure as its core formula P, its condition C and its additive constraint A.

    Each is the shortest disjunction of terms that is true in the same rows (fewest terms, then fewest literals), with
    "xor", "<->" and "->" where they say the same. Equal formulas mean equal structures, not equal losses: link, beta
    and the division by length are not in them.

    Args: names: one an atom, X1, X2 and so on by default.

    Source: Richardson et al. (2024), section 4; the terms by McCluskey (1956), Minimization of Boolean functions.
    Paper 95.

    Raises RivalsError: names that are not one an atom, or alike; more than 6 atoms.

    >>> preference_formulas(PREFERENCE_STRUCTURES["cpo"], ["W", "L"])
    ('L -> W', 'W or L', 'W and L')
    >>> preference_formulas(PREFERENCE_STRUCTURES["dpo"], ["W", "L", "Rw", "Rl"])[0]
    '(L and Rw) -> (W and Rl)'
    """
    atoms = structure.atoms
    if atoms > 6:
        raise RivalsError(f"formulas are written for up to 6 atoms; the structure has {atoms}")
    names = tuple(names) or tuple(f"X{atom + 1}" for atom in range(atoms))
    if len(names) != atoms or len(set(names)) != atoms:
        raise RivalsError(f"names must be {atoms} different names, one an atom; got {list(names)}")
    core, condition, additive = (
        formula_text(table, names) for table in (structure.core, structure.condition, structure.additive)
    )
    return core, condition, additive


def preference_structures(atoms: int = 2) -> Iterator[PreferenceStructure]:
    """Yield every structure over some atoms whose top and bottom have a row: 225 of 256 for two atoms.

    Source: Richardson et al. (2024), section 4. Paper 95.

    >>> len(list(preference_structures(2)))
    225
    """
    for rows in itertools.product("xtb-", repeat=1 << atoms):
        if set(rows) & set("xt") and set(rows) & set("xb"):
            yield PreferenceStructure.from_rows("".join(rows))


PREFERENCE_STRUCTURES: dict[str, PreferenceStructure] = {
    # atoms: winner, loser
    "ce": PreferenceStructure.from_rows("ttbb"),
    "ce_unlikelihood": PreferenceStructure.from_rows("btbb"),
    "cpo": PreferenceStructure.from_rows("xtb-"),
    "orpo": PreferenceStructure.from_rows("-tb-"),
    "uncpo": PreferenceStructure.from_rows("ttbt"),
    # atoms: winner, loser, the reference's winner, the reference's loser (SimPO: constants of log-ratio -margin)
    "dpo": decompile_preference(lambda w, lo, rw, rl: w * rl, lambda w, lo, rw, rl: rw * lo, 4),
    # atoms: loser, the reference's loser
    "npo": decompile_preference(lambda lost, ref: ref, lambda lost, ref: lost, 2),
}
"""The structures of known losses by name."""


def _log_ratio(logps: Tensor, structure: PreferenceStructure, there: Tensor, name: str) -> Tensor:
    """log count(top) - log count(bottom) of every example, 0 where there is none."""
    true = logps.to(compute_dtype(logps)).masked_fill(~there.unsqueeze(-1), -1.0)
    check_finite(true, name)
    check_not_above_zero(true, name)
    true = true.clamp(max=SURE)
    false = torch.log(-torch.expm1(true))
    corners = list(itertools.product((1.0, 0.0), repeat=structure.atoms))
    table = torch.tensor(corners, dtype=true.dtype, device=true.device)
    weight = true @ table.T + false @ (1 - table).T
    top, bottom = (torch.tensor(rows, device=true.device) for rows in (structure.top, structure.bottom))
    return (weight[..., top].logsumexp(-1) - weight[..., bottom].logsumexp(-1)).masked_fill(~there, 0.0)
