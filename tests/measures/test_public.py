"""Every public name of the room is there, is said to be there, and says what it is."""

from __future__ import annotations

import inspect
import re

import pytest

import rivals.measures

FUNCTIONS = [
    function
    for function in (getattr(rivals.measures, name) for name in rivals.measures.__all__)
    if inspect.isfunction(function)
]


@pytest.mark.parametrize("name", rivals.measures.__all__)
def test_every_name_is_there_and_no_module_hides_it(name):
    assert not inspect.ismodule(getattr(rivals.measures, name))
    assert name in dir(rivals.measures)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_function_says_what_it_does_and_shows_it(function):
    text = inspect.getdoc(function) or ""
    first = text.split("\n\n")[0]
    assert re.search(r"[.:]$", first.split("\n")[0]) or "." in first, "the first sentence must end"
    assert ">>> " in text, "an example that runs"
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
