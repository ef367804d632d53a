"""Preference losses as logic (paper 95): known losses, entailment, and the laws of `preference_structure_loss`."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from rivals.errors import RivalsError
from rivals.losses import (
    PREFERENCE_STRUCTURES,
    PreferenceStructure,
    decompile_preference,
    preference_formulas,
    preference_loss,
    preference_structure_loss,
    preference_structures,
)
from rivals.losses._truth_tables import shortest_terms

P = torch.tensor([[0.6, 0.3]], dtype=torch.float64)
KNOWN = {"ce": 0.510826, "ce_unlikelihood": 0.867501, "cpo": 0.405465, "orpo": 0.251314, "uncpo": 0.127833}
PAIR = [name for name, structure in PREFERENCE_STRUCTURES.items() if structure.atoms == 2 and name != "npo"]


def draw(size: int, atoms: int = 2, seed: int = 0) -> Tensor:
    """Log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, atoms, generator=generator, dtype=torch.float64).clamp(0.01, 0.99).log()


def test_known_losses() -> None:
    """Checks 1 and 3."""
    for name, expected in KNOWN.items():
        assert preference_structure_loss(P.log(), PREFERENCE_STRUCTURES[name]).item() == pytest.approx(
            expected, abs=1e-6
        )
    cpo = decompile_preference(lambda won, lost: won, lambda won, lost: lost, 2)
    assert cpo.rows == "xtb-"
    assert cpo.core == (True, True, False, True)  # the loser implies the winner
    assert cpo.condition == (True, True, True, False)
    assert cpo.additive == (True, False, False, False)


def test_against_direct_formulas() -> None:
    logps = draw(500)
    won, lost = logps.exp().unbind(-1)
    rho = {
        "ce": torch.log(won / (1 - won)),
        "ce_unlikelihood": torch.log(won * (1 - lost) / (1 - won * (1 - lost))),
        "cpo": torch.log(won / lost),
        "orpo": torch.log(won * (1 - lost) / (lost * (1 - won))),
        "uncpo": torch.log((lost * won + 1 - lost) / (lost * (1 - won))),
    }
    for name, ratio in rho.items():
        for beta, margin in ((1.0, 0.0), (0.3, 0.2)):
            found = preference_structure_loss(
                logps, PREFERENCE_STRUCTURES[name], beta=beta, margin=margin, reduction="none"
            )
            expected = -torch.nn.functional.logsigmoid(beta * ratio - margin)
            assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_they_are_the_losses_over_log_probabilities() -> None:
    logps, reference, chosen = draw(50), draw(50, seed=1), torch.tensor([1.0, 0.0]).expand(50, 2)
    cpo, orpo, npo = (PREFERENCE_STRUCTURES[name] for name in ("cpo", "orpo", "npo"))

    def same(structure: PreferenceStructure, values: Tensor, expected: Tensor, **options: object) -> None:
        found = preference_structure_loss(values, structure, **options)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)

    same(cpo, logps, preference_loss(logps, chosen, score="log_prob"), beta=0.1)
    same(cpo, logps, preference_loss(logps, chosen, reference), beta=0.1, ref_logps=reference)
    same(
        PREFERENCE_STRUCTURES["dpo"],
        torch.cat([logps, reference], 1),
        preference_loss(logps, chosen, reference),
        beta=0.1,
    )
    same(
        cpo,
        logps,
        preference_loss(logps, chosen, reference, link="square"),
        ref_logps=reference,
        beta=0.1,
        link="square",
    )
    odds = preference_loss(logps, chosen, lengths=torch.ones(50, 2), score="log_odds", beta=1.0)
    same(orpo, logps, odds)
    negatives = torch.stack([logps[:, 1], reference[:, 1]], 1)
    forget = preference_loss(
        negatives[:, :1], torch.zeros(50, 1), negatives[:, 1:], structure="negatives_only", beta=0.5
    )
    same(npo, negatives, forget / (2 / 0.5), beta=0.5)


def test_entailment_orders_the_losses() -> None:
    """Check 2, and every entailing pair of the 225 structures on random probabilities."""
    ce, unlikely, cpo, orpo, uncpo = (PREFERENCE_STRUCTURES[name] for name in KNOWN)
    for stronger, weaker in (
        (unlikely, ce),
        (ce, uncpo),
        (unlikely, orpo),
        (orpo, uncpo),
        (unlikely, cpo),
        (cpo, uncpo),
    ):
        assert stronger.entails(weaker)
        assert not weaker.entails(stronger)
    for one, other in ((cpo, orpo), (ce, orpo)):
        assert not one.entails(other)
        assert not other.entails(one)
    logps = draw(20)
    everything = list(preference_structures(2))
    assert len(everything) == 256 - 2 * 16 + 1
    losses = torch.stack([preference_structure_loss(logps, s, reduction="none") for s in everything])
    for i, j in itertools.product(range(0, 225, 7), range(225)):
        if everything[i].entails(everything[j]):
            assert (losses[i] >= losses[j] - 1e-12).all()


def test_core_condition_and_additive_give_top_and_bottom_back() -> None:
    """Check 4."""
    generator = torch.Generator().manual_seed(0)
    for rows in (torch.rand(300, 2, 8, generator=generator) > 0.5).tolist():
        if not (any(rows[0]) and any(rows[1])):
            continue
        structure = PreferenceStructure(tuple(rows[0]), tuple(rows[1]))
        parts = list(zip(structure.core, structure.condition, structure.additive, strict=True))
        assert tuple((p or a) and c for p, c, a in parts) == structure.top
        assert tuple((not p or a) and c for p, c, a in parts) == structure.bottom
        assert PreferenceStructure.from_rows(structure.rows) == structure


# ---------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", PAIR)
def test_absent_examples_never_count(name: str) -> None:
    structure, logps = PREFERENCE_STRUCTURES[name], draw(4)
    alone = preference_structure_loss(logps[:3], structure)
    for garbage in (math.nan, math.inf, -1e4, 5.0):
        padded = logps.clone()
        padded[3] = garbage
        padded.requires_grad_()
        mask = torch.tensor([True, True, True, False])
        loss = preference_structure_loss(padded, structure, mask, ref_logps=None)
        assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
        assert not torch.autograd.grad(loss, padded)[0][3].any()
    nothing = preference_structure_loss(logps, structure, torch.zeros(4, dtype=torch.bool))
    assert nothing == preference_structure_loss(logps[:0], structure) == 0


@pytest.mark.parametrize("name", PREFERENCE_STRUCTURES)
def test_extremes_and_gradients(name: str) -> None:
    structure = PREFERENCE_STRUCTURES[name]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for scale in (1.0, 800.0, 1e4):
            logps = (draw(6, structure.atoms) * scale).clamp(min=-1e4).to(dtype)
            logps[0] = 0.0  # certain
            logps.requires_grad_()
            loss = preference_structure_loss(logps, structure)
            assert loss.isfinite()
            assert torch.autograd.grad(loss, logps)[0].isfinite().all()
    logps = draw(3, structure.atoms).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: preference_structure_loss(x, structure, beta=0.5), logps)
    each = preference_structure_loss(logps, structure, reduction="none")
    assert each.sum().item() == pytest.approx(preference_structure_loss(logps, structure, reduction="sum").item())
    assert each.mean().item() == pytest.approx(preference_structure_loss(logps, structure).item())


def test_bad_input_is_named() -> None:
    """Check 5 among others."""
    cpo = PREFERENCE_STRUCTURES["cpo"]
    for bad, message in (
        (lambda: decompile_preference(lambda won, lost: 2 * won, lambda won, lost: lost, 2), "top must be 0 or 1"),
        (lambda: decompile_preference(lambda won, lost: won, lambda won, lost: lost**2, 2), "linear"),
        (lambda: decompile_preference(lambda won: 0 * won, lambda won: won, 1), "each have a row"),
        (lambda: PreferenceStructure.from_rows("tq"), "rows"),
        (lambda: PreferenceStructure((True,) * 3, (True,) * 3), "power of 2"),
        (lambda: cpo.entails(PREFERENCE_STRUCTURES["dpo"]), "atoms"),
        (lambda: preference_structure_loss(draw(2, 3), cpo), "logps"),
        (lambda: preference_structure_loss(-draw(2), cpo), "none above 0"),
        (lambda: preference_structure_loss(draw(2) * math.nan, cpo), "logps"),
        (lambda: preference_structure_loss(draw(2), cpo, torch.ones(2)), "mask"),
        (lambda: preference_structure_loss(draw(2), cpo, beta=0), "beta"),
        (lambda: preference_structure_loss(draw(2), cpo, link="apo_down"), "apo_down"),
        (lambda: preference_structure_loss(draw(2), cpo, link="nca"), "link"),
        (lambda: preference_structure_loss(draw(2), cpo, reduction="median"), "reduction"),  # type: ignore[arg-type]
        (lambda: preference_structure_loss(torch.zeros(2, 2, dtype=torch.int64), cpo), "floating"),
    ):
        with pytest.raises(RivalsError, match=message):
            bad()


# ---------------------------------------------------------------------------------- formulas


def test_formulas_of_known_losses() -> None:
    """Paper 95, the table of known losses."""
    known = {
        "ce": ("W", "true", "false"),
        "ce_unlikelihood": ("W and not L", "true", "false"),
        "cpo": ("L -> W", "W or L", "W and L"),
        "orpo": ("L -> W", "W xor L", "false"),
        "uncpo": ("L -> W", "true", "false"),
    }
    for name, expected in known.items():
        assert preference_formulas(PREFERENCE_STRUCTURES[name], ["W", "L"]) == expected
    assert preference_formulas(PREFERENCE_STRUCTURES["npo"], ["L", "Rl"]) == ("L -> Rl", "L or Rl", "L and Rl")
    dpo = preference_formulas(PREFERENCE_STRUCTURES["dpo"], ["W", "L", "Rw", "Rl"])
    assert dpo == ("(L and Rw) -> (W and Rl)", "(W and Rl) or (L and Rw)", "W and L and Rw and Rl")
    assert preference_formulas(PreferenceStructure.from_rows("tbbt"))[0] == "X1 <-> X2"


def holds(formula: str, **values: bool) -> bool:
    """Evaluate a formula with Python's own logic."""
    if " -> " in formula:
        left, right = formula.split(" -> ")
        return not holds(left, **values) or holds(right, **values)
    return bool(eval(formula.replace("<->", "==").replace("xor", "!="), {"true": True, "false": False}, values))


@pytest.mark.parametrize("atoms", [2, 3, 4])
def test_formulas_are_true_in_their_rows(atoms: int) -> None:
    names = [f"X{number + 1}" for number in range(atoms)]
    generator = torch.Generator().manual_seed(atoms)
    for _ in range(150):
        drawn = torch.randint(0, 4, (1 << atoms,), generator=generator).tolist()
        rows = "".join("xtb-"[row] for row in drawn)
        if not (set(rows) & set("xt") and set(rows) & set("xb")):
            continue
        structure = PreferenceStructure.from_rows(rows)
        tables = (structure.core, structure.condition, structure.additive)
        for formula, table in zip(preference_formulas(structure), tables, strict=True):
            for values, wanted in zip(itertools.product((True, False), repeat=atoms), table, strict=True):
                assert holds(formula, **dict(zip(names, values, strict=True))) == wanted, formula


def test_formulas_are_the_shortest() -> None:
    """Against every disjunction of fewer terms, for all tables of three atoms."""
    every = list(itertools.product((True, False, None), repeat=3))
    corners = list(itertools.product((True, False), repeat=3))

    def table_of(term: tuple[bool | None, ...]) -> int:
        meets = [all(v in (None, c) for v, c in zip(term, corner, strict=True)) for corner in corners]
        return sum(bit << place for place, bit in enumerate(meets))

    fewest = {0: (0, 0)}
    for count in range(1, 5):
        for terms in itertools.combinations(every, count):
            found = 0
            for term in terms:
                found |= table_of(term)
            cost = (count, sum(value is not None for term in terms for value in term))
            fewest[found] = min(fewest.get(found, cost), cost)
    assert len(fewest) == 256
    for number, cost in fewest.items():
        table = [bool(number >> place & 1) for place in range(8)]
        terms = shortest_terms(table)
        assert (len(terms), sum(value is not None for term in terms for value in term)) == cost


def test_formulas_refuse_names_that_do_not_fit() -> None:
    with pytest.raises(RivalsError, match="2 different names"):
        preference_formulas(PREFERENCE_STRUCTURES["cpo"], ["W", "W"])
    with pytest.raises(RivalsError, match="up to 6 atoms"):
        preference_formulas(PreferenceStructure.from_rows("tb" * 64))
