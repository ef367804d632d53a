"""Truth tables as the shortest formulas: Quine-McCluskey, written as people write logic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Term = tuple[bool | None, ...]
"""Of every atom: true, false, or None where the term does not mention it."""


def shortest_terms(table: Sequence[bool]) -> list[Term]:
    """Return the fewest terms, then the fewest literals, whose disjunction is the table; rows run true before false.

    >>> shortest_terms([True, True, False, True])
    [(None, False), (True, None)]
    """
    atoms = len(table).bit_length() - 1
    rows = [row for row, holds in zip(itertools.product((True, False), repeat=atoms), table, strict=True) if holds]
    primes = sorted(_primes(set(rows)), key=_size_first)
    covers = {prime: frozenset(row for row in rows if _covers(prime, row)) for prime in primes}
    best: list[Term] = []
    reach = max(map(len, covers.values()), default=1)

    def cost(terms: list[Term]) -> tuple[int, int]:
        return len(terms), sum(map(_literals, terms))

    def search(chosen: list[Term], missing: frozenset[tuple[bool, ...]]) -> None:
        nonlocal best
        if not missing:
            best = min(best or chosen, chosen, key=cost)
            return
        if best and len(chosen) - (-len(missing) // reach) > len(best):
            return
        hardest = min(sorted(missing), key=lambda row: sum(row in covered for covered in covers.values()))
        choices = [prime for prime in primes if hardest in covers[prime]]
        for prime in sorted(choices, key=lambda prime: -len(covers[prime] & missing)):
            search([*chosen, prime], missing - covers[prime])

    search([], frozenset(rows))
    return sorted(best, key=_size_first)


def formula_text(table: Sequence[bool], names: Sequence[str]) -> str:
    """Write a truth table as a formula with not, and, or, xor, -> and <->.

    >>> formula_text([True, True, False, True], ["W", "L"]), formula_text([False, True, True, False], ["W", "L"])
    ('L -> W', 'W xor L')
    """
    if all(table) or not any(table):
        return "true" if all(table) else "false"
    terms = shortest_terms(table)
    if len(terms) == 2:
        used = [[value for value in term if value is not None] for term in terms]
        same = [
            (one is None) == (other is None) and (one is None or one != other)
            for one, other in zip(*terms, strict=True)
        ]
        if all(same) and len(used[0]) == 2:
            one, other = (name for name, value in zip(names, terms[0], strict=True) if value is not None)
            return f"{one} {'<->' if used[0][0] == used[0][1] else 'xor'} {other}"
    denied = [term for term in terms if _literals(term) == 1 and False in term]
    others = [term for term in terms if term not in denied]
    if not denied or not others:
        return _either(terms, names)
    given = [name for term in denied for name, value in zip(names, term, strict=True) if value is not None]
    left = " and ".join(sorted(given, key=list(names).index))
    right = _either(others, names)
    return f"{f'({left})' if ' ' in left else left} -> {f'({right})' if ' ' in right else right}"


def _primes(rows: set[tuple[bool, ...]]) -> set[Term]:
    """The terms that hold in these rows only and lose that with any literal less."""
    primes: set[Term] = set()
    level: set[Term] = set(rows)
    while level:
        merged: set[Term] = set()
        used: set[Term] = set()
        for term in level:
            for atom, value in enumerate(term):
                twin = (*term[:atom], not value, *term[atom + 1 :])
                if value is not None and twin in level:
                    merged.add((*term[:atom], None, *term[atom + 1 :]))
                    used.add(term)
        primes |= level - used
        level = merged
    return primes


def _covers(term: Term, row: tuple[bool, ...]) -> bool:
    return all(value is None or value == found for value, found in zip(term, row, strict=True))


def _literals(term: Term) -> int:
    return sum(value is not None for value in term)


def _size_first(term: Term) -> tuple[int, tuple[int, ...]]:
    order = {True: 1, False: 0, None: 2}
    return _literals(term), tuple(order[value] for value in term) if _literals(term) > 1 else _single(term)


def _single(term: Term) -> tuple[int, ...]:
    """Denied atoms before affirmed ones, then as the atoms stand."""
    return next(((int(value), atom) for atom, value in enumerate(term) if value is not None), ())


def _either(terms: Sequence[Term], names: Sequence[str]) -> str:
    texts = [
        " and ".join(
            name if value else f"not {name}" for name, value in zip(names, term, strict=True) if value is not None
        )
        for term in terms
    ]
    return " or ".join(f"({text})" if " and " in text and len(texts) > 1 else text for text in texts)
