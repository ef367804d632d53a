"""New tokens of a transformer: markers of queries, documents and domains, each with a row of its own that can learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rivals.errors import RivalsError
from rivals.models._transformer import quiet_transformers


def add_tokens(backbone: Any, tokenizer: Any, tokens: Mapping[str, str]) -> dict[str, int]:
    """Add tokens to a tokenizer and a transformer, each starting from the embedding of a token that exists; return their ids.

    Args:
        tokens: new token -> the token whose embedding it starts from. One that the vocabulary has already keeps its embedding; all
            are read as one piece from now on, whatever stands around them.

    Source: markers of ColBERT (Khattab and Zaharia 2020); a domain's token starts from [CLS] (Hallee et al. 2024, paper 3); the fine
    query marker from the coarse one (paper 31).

    Raises:
        RivalsError: an empty token, or one to start from that the vocabulary lacks.

    >>> from rivals.models import Encoder
    >>> encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu")
    >>> add_tokens(encoder.backbone, encoder.tokenizer, {"[Q]": "[CLS]"})
    {'[Q]': 30522}
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    made: dict[str, str] = {}
    for token, like in tokens.items():
        if not token.strip():
            raise RivalsError("a new token must hold something else than spaces")
        if like not in known and like not in made:
            raise RivalsError(f"token {token!r} cannot start from {like!r}, which the vocabulary lacks")
        made[token] = like
    with quiet_transformers():
        tokenizer.add_tokens(
            [AddedToken(token, normalized=False, special=True) for token in tokens], special_tokens=True
        )
        rows = backbone.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
    weight = backbone.get_input_embeddings().weight
    with torch.no_grad():
        for token, like in made.items():
            if token not in known:
                weight[ids[token]] = weight[int(tokenizer.convert_tokens_to_ids(like))]
    return ids
