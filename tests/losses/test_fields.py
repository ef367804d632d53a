"""Every public loss has every docstring field, and its source names at least one paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rivals.errors import RivalsError
from rivals.losses import LOSSES
from rivals.losses._fields import FIELDS, docstring_fields, source_papers


@pytest.mark.parametrize("function", LOSSES.values(), ids=list(LOSSES))
def test_no_field_is_missing(function: Callable[..., Any]) -> None:
    fields = docstring_fields(function)
    assert list(fields) == ["Summary", *FIELDS]
    assert source_papers(fields)
    assert fields["Summary"].endswith(".")
    assert fields["Raises"].startswith("RivalsError:")


def test_a_missing_field_is_an_error() -> None:
    def bare_loss() -> None:
        """Do a thing.

        Formula:
            1
        """

    with pytest.raises(RivalsError, match=r"bare_loss must have the fields Formula, .* found Formula$"):
        docstring_fields(bare_loss)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    y\n", "", "empty field 'Shapes'"),
        (">>> 1", "1", "no doctest"),
        ("Summary.", "Two\nlines.", "summary of one line"),
    ],
)
def test_a_poor_field_is_an_error(old: str, new: str, message: str) -> None:
    def poor_loss() -> None:
        pass

    texts = {"Formula": "x", "Shapes": "y", "Example": ">>> 1"}
    good = "Summary.\n\n" + "".join(f"{name}:\n    {texts.get(name, 'z')}\n\n" for name in FIELDS)
    poor_loss.__doc__ = good
    assert docstring_fields(poor_loss)["Formula"] == "x"
    poor_loss.__doc__ = good.replace(old, new)
    with pytest.raises(RivalsError, match=message):
        docstring_fields(poor_loss)
