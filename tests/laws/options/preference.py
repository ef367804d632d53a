"""Declarations of the preference and unlearning losses."""

from __future__ import annotations

from tests.laws.options._options import Options

OPTIONS: dict[str, Options] = {
    "preference": Options(own_laws="losses/test_preference_laws.py"),
    "preference_structure": Options(own_laws="losses/test_preference_logic.py"),
    "unlearning": Options(own_laws="losses/test_unlearning.py"),
    "cringe": Options(own_laws="losses/test_token_contrast.py"),
    "pairwise_cringe": Options(own_laws="losses/test_token_contrast.py"),
    "unlikelihood": Options(own_laws="losses/test_token_contrast.py"),
}
