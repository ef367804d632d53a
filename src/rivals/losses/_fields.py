"""Reads the docstring fields of a public function: what the catalogues (by name, by data, by paper) are made from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from rivals.errors import RivalsError

FIELDS = ("Formula", "Shapes", "When to use", "Relations", "Source", "Raises", "Example")
"""The fields every public loss has, in this order, after one line of summary."""

_HEADING = re.compile(r"^([A-Z][A-Za-z ]+):$")
_PAPERS = re.compile(r"\bpapers? (\d+(?:(?:, | and )\d+)*)", re.IGNORECASE)


def docstring_fields(function: Callable[..., Any]) -> dict[str, str]:
    """Return the summary (key "Summary") and the fields of a function's docstring; a missing or empty field raises.

    >>> from rivals.losses import softmax_loss
    >>> list(docstring_fields(softmax_loss))
    ['Summary', 'Formula', 'Shapes', 'When to use', 'Relations', 'Source', 'Raises', 'Example']
    """
    lines = inspect.cleandoc(function.__doc__ or "").splitlines()
    collected: dict[str, list[str]] = {"Summary": []}
    current = "Summary"
    for line in lines:
        heading = _HEADING.match(line)
        if heading:
            current = heading[1]
            collected[current] = []
        else:
            collected[current].append(line)
    fields = {name: inspect.cleandoc("\n" + "\n".join(text)).strip() for name, text in collected.items()}
    if list(fields) != ["Summary", *FIELDS]:
        raise RivalsError(
            f"the docstring of {function.__name__} must have the fields {', '.join(FIELDS)}, in this order; "
            f"found {', '.join(list(fields)[1:]) or 'none'}"
        )
    for name, text in fields.items():
        if not text:
            raise RivalsError(f"the docstring of {function.__name__} has an empty field {name!r}")
    if len(fields["Summary"].splitlines()) != 1:
        raise RivalsError(f"the docstring of {function.__name__} must start with a summary of one line")
    if ">>>" not in fields["Example"]:
        raise RivalsError(f"the docstring of {function.__name__} has no doctest in its field 'Example'")
    return fields


def source_papers(fields: dict[str, str]) -> tuple[int, ...]:
    """Return the numbers of the papers a function's "Source" field names, rising.

    >>> source_papers({"Source": "Cao et al. (2007). Papers 6, 4 and 11."})
    (4, 6, 11)
    """
    return papers_in(fields["Source"])


def papers_in(text: str) -> tuple[int, ...]:
    """Return the numbers of the papers a text names, rising.

    >>> papers_in("Kendall (1938). Papers 55,\\n42 and 78; the gap: paper 56.")
    (42, 55, 56, 78)
    """
    found = _PAPERS.findall(" ".join(text.split()))
    return tuple(sorted({int(number) for match in found for number in re.findall(r"\d+", match)}))
