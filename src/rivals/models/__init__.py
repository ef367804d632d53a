"""Models: text encoders, rerankers, list rankers, recommenders, small encoders of pictures and features; language models beside them.

Encoders share their folder format with sentence-transformers. Names are loaded when first used, so importing this room loads neither
torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivals.models.bag_classifier import BagClassifier
    from rivals.models.batching import Tokens, token_batches
    from rivals.models.cache import VectorCache
    from rivals.models.cross_encoder import CrossEncoder
    from rivals.models.dual_head import DualHead
    from rivals.models.encoder import Encoder, TokenVectors
    from rivals.models.folder import resolve_model
    from rivals.models.grownet import GrowNetEnsemble, GrowNetLearner
    from rivals.models.images import FeatureEncoder, Headed, ImageEncoder, load_small_encoder
    from rivals.models.late_interaction import max_sim, max_sim_pairs, sentence_attention_score
    from rivals.models.late_interaction_model import LateInteraction
    from rivals.models.list_ranker import ContextRanker
    from rivals.models.list_transformer import ListContrastRanker, iterative_rerank
    from rivals.models.lora import add_lora, load_lora, merge_lora, save_lora
    from rivals.models.multi_vector_folder import QueryExpansion
    from rivals.models.pair_features import PairFeatures
    from rivals.models.passages import max_passage
    from rivals.models.rerank import (
        CrossEncoderReranker,
        LateInteractionReranker,
        ListwiseReranker,
        SecondStage,
        load_reranker,
    )
    from rivals.models.routed import RoutedExperts
    from rivals.models.routed_encoder import RoutedEncoder
    from rivals.models.safe_sharing import SafeSharing
    from rivals.models.scored_tokens import ScoredTokens
    from rivals.models.simplex import HistoryMixer, SimpleX
    from rivals.models.target_words import mark_target

_HOME = {
    "BagClassifier": "bag_classifier",
    "ContextRanker": "list_ranker",
    "CrossEncoder": "cross_encoder",
    "CrossEncoderReranker": "rerank",
    "DualHead": "dual_head",
    "Encoder": "encoder",
    "FeatureEncoder": "images",
    "GrowNetEnsemble": "grownet",
    "GrowNetLearner": "grownet",
    "Headed": "images",
    "HistoryMixer": "simplex",
    "ImageEncoder": "images",
    "LateInteraction": "late_interaction_model",
    "LateInteractionReranker": "rerank",
    "ListContrastRanker": "list_transformer",
    "ListwiseReranker": "rerank",
    "PairFeatures": "pair_features",
    "QueryExpansion": "multi_vector_folder",
    "RoutedEncoder": "routed_encoder",
    "RoutedExperts": "routed",
    "SafeSharing": "safe_sharing",
    "ScoredTokens": "scored_tokens",
    "SecondStage": "rerank",
    "SimpleX": "simplex",
    "TokenVectors": "encoder",
    "Tokens": "batching",
    "VectorCache": "cache",
    "add_lora": "lora",
    "iterative_rerank": "list_transformer",
    "load_lora": "lora",
    "load_reranker": "rerank",
    "load_small_encoder": "images",
    "mark_target": "target_words",
    "max_passage": "passages",
    "max_sim": "late_interaction",
    "max_sim_pairs": "late_interaction",
    "merge_lora": "lora",
    "resolve_model": "folder",
    "save_lora": "lora",
    "sentence_attention_score": "late_interaction",
    "token_batches": "batching",
}

__all__ = [
    "BagClassifier",
    "ContextRanker",
    "CrossEncoder",
    "CrossEncoderReranker",
    "DualHead",
    "Encoder",
    "FeatureEncoder",
    "GrowNetEnsemble",
    "GrowNetLearner",
    "Headed",
    "HistoryMixer",
    "ImageEncoder",
    "LateInteraction",
    "LateInteractionReranker",
    "ListContrastRanker",
    "ListwiseReranker",
    "PairFeatures",
    "QueryExpansion",
    "RoutedEncoder",
    "RoutedExperts",
    "SafeSharing",
    "ScoredTokens",
    "SecondStage",
    "SimpleX",
    "TokenVectors",
    "Tokens",
    "VectorCache",
    "add_lora",
    "iterative_rerank",
    "load_lora",
    "load_reranker",
    "load_small_encoder",
    "mark_target",
    "max_passage",
    "max_sim",
    "max_sim_pairs",
    "merge_lora",
    "resolve_model",
    "save_lora",
    "sentence_attention_score",
    "token_batches",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rivals.models' has no attribute {name!r}")
    return getattr(import_module(f"rivals.models.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
