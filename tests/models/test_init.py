"""The room is cheap to enter."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rivals.models


def test_entering_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, rivals.models; print(sorted({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['numpy']")


def test_every_public_name_is_there() -> None:
    for name in rivals.models.__all__:
        assert getattr(rivals.models, name).__name__ == name
    assert set(rivals.models.__all__) <= set(dir(rivals.models))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = rivals.models.Nothing
