"""Folders of late-interaction models: the multi-vector layout of sentence-transformers and that of PyLate, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rivals.errors import ModelError, RivalsError
from rivals.models.folder import DenseSpec, _dense, _inside, read_json, transformer_settings, write_json

FolderFormat = Literal["sentence-transformers", "pylate"]
_IDENTITY = "torch.nn.modules.linear.Identity"
_BASE = "sentence_transformers.base.modules"
_PUNCTUATION = tuple("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_CONFIG = "config_sentence_transformers.json"
_KNOWN = ("Transformer", "Dense", "MultiVectorMask", "Normalize")


@dataclass(frozen=True, slots=True)
class QueryExpansion:
    """Fill queries up to `length` tokens with the mask token (or `token`), whose vectors then count as query tokens.

    `attend`: other tokens see the added ones. `fixed`: longer queries are cut at `length`; otherwise they keep their length.

    Source: Khattab and Zaharia (2020), ColBERT, section 3.2 (query augmentation, length 32).
    """

    length: int = 32
    attend: bool = False
    fixed: bool = True
    token: str | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise RivalsError(f"the length of a query expansion must be 1 or more, not {self.length}")


@dataclass(frozen=True, slots=True)
class MultiVectorLayout:
    """What a late-interaction model does beside its weights.

    Args:
        head: linear layers over token vectors, in order; none keeps the transformer's vectors.
        prompts: what is put before texts, by "query", "document" and "fine" (a query that is to find a part of a document).
        query_length, document_length: tokens at which texts are cut, special tokens included; None = the model's length.
        expansion: of queries; None = none.
        skip: words whose tokens do not count in documents, such as punctuation.
        similarity: "meanmaxsim" divides MaxSim by the number of query tokens, so that scores are in [-1, 1]; "maxsim" does not.
    """

    head: tuple[DenseSpec, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    query_length: int | None = None
    document_length: int | None = None
    expansion: QueryExpansion | None = None
    skip: tuple[str, ...] = ()
    similarity: Literal["maxsim", "meanmaxsim"] = "meanmaxsim"


def read_multi_vector(folder: Path) -> tuple[str, MultiVectorLayout, int | None, bool]:
    """Return (transformer's folder, layout, longest input stated, lower case) of a late-interaction model.

    Raises:
        ModelError: a file missing or damaged, modules that are not known, or a folder of a model with one vector a text.
    """
    if not (folder / "modules.json").exists():
        raise ModelError(
            f"{folder}: no modules.json here; load it as an Encoder and make it late interaction with LateInteraction.from_encoder"
        )
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) for m in modules
    ):
        raise ModelError(f"{folder / 'modules.json'}: expected a list of modules with a type and a path")
    names = [module["type"].rsplit(".", 1)[-1] for module in modules]
    paths = [_inside(folder, str(module.get("path", ""))) for module in modules]
    if "Pooling" in names:
        raise ModelError(
            f"{folder}: this model gives one vector a text; load it as an Encoder and use LateInteraction.from_encoder"
        )
    unknown = [m["type"] for m, name in zip(modules, names, strict=True) if name not in _KNOWN]
    if unknown or names[:1] != ["Transformer"] or names.count("Transformer") != 1:
        raise ModelError(
            f"{folder / 'modules.json'}: a late-interaction model is a Transformer, then Dense, MultiVectorMask and Normalize; "
            f"found {unknown or names}"
        )
    extra = read_json(folder / _CONFIG) if (folder / _CONFIG).exists() else {}
    pylate = extra.get("model_type") == "ColBERT"
    head, skip = [], tuple(extra.get("skiplist_words") or (_PUNCTUATION if pylate else ()))
    if "skiplist_words" in extra and extra["skiplist_words"] == []:
        skip = ()
    for name, path in zip(names, paths, strict=True):
        config = read_json(folder / path / "config.json") if name in ("Dense", "MultiVectorMask") else {}
        if name == "Dense":
            if config.get("module_input_name", "token_embeddings") != "token_embeddings":
                raise ModelError(
                    f"{folder / path}: Dense works on {config['module_input_name']}, not on token_embeddings"
                )
            head.append(_dense(folder, path, {"activation_function": _IDENTITY, "bias": False, **config}))
        elif name == "MultiVectorMask":
            if config.get("keep_only_token_ids") or config.get("skiplist_tasks", ["document"]) != ["document"]:
                raise ModelError(f"{folder / path}: masks other than a skip list of document words are not known here")
            skip = tuple(config.get("skiplist_words") or ())
    length, lower = transformer_settings(folder / paths[0], task="feature-extraction")
    settings = extra if pylate else _settings(folder / paths[0])
    prompts = {str(k): v for k, v in (extra.get("prompts") or {}).items() if isinstance(v, str) and v}
    for role in ("query", "document"):
        if extra.get(f"{role}_prefix"):
            prefix = str(extra[f"{role}_prefix"])
            prompts[role] = prefix + prompts.get(role, "").removeprefix(prefix)
    layout = MultiVectorLayout(
        tuple(head),
        prompts,
        None if pylate and extra.get("do_query_expansion", True) else _length(folder, settings, "query_length"),
        _length(folder, settings, "document_length"),
        _pylate_expansion(extra) if pylate else _expansion(folder, settings.get("query_expansion")),
        skip,
        "meanmaxsim" if str(extra.get("similarity_fn_name")).lower() == "meanmaxsim" else "maxsim",
    )
    return paths[0], layout, length, lower


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "sentence_bert_config.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def _length(folder: Path, settings: Mapping[str, Any], name: str) -> int | None:
    value = settings.get(name)
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ModelError(f"{folder}: {name} is {value!r}; it must be a whole number above 0")
    return value


def _expansion(folder: Path, found: Any) -> QueryExpansion | None:
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("strategy") not in ("fixed", "min") or "length" not in found:
        raise ModelError(f"{folder}: query_expansion must hold a length and the strategy fixed or min, not {found!r}")
    return QueryExpansion(
        int(found["length"]), bool(found.get("attend", False)), found["strategy"] == "fixed", found.get("token")
    )


def _pylate_expansion(extra: Mapping[str, Any]) -> QueryExpansion | None:
    if not extra.get("do_query_expansion", True):
        return None
    return QueryExpansion(int(extra.get("query_length") or 32), bool(extra.get("attend_to_expansion_tokens", False)))


def dense_folder(index: int) -> str:
    """Folder name of the linear layer number `index`."""
    return f"{index + 1}_Dense"


def write_multi_vector(
    folder: Path, layout: MultiVectorLayout, *, max_length: int, lower_case: bool, form: FolderFormat
) -> None:
    """Write modules.json and the small files beside it; weights and tokenizer are written by the caller.

    Raises:
        RivalsError: an unknown format, or a model that PyLate's format cannot describe.
    """
    import torch
    import transformers

    if form not in ("sentence-transformers", "pylate"):
        raise RivalsError(f"format is {form!r}; use 'sentence-transformers' or 'pylate'")
    pylate, expansion = form == "pylate", layout.expansion
    if pylate:
        if not layout.head or (expansion is not None and (not expansion.fixed or expansion.token)):
            raise RivalsError(
                "PyLate's format has a linear layer and fills queries to a fixed length with the mask token; this model does not: "
                "save it in the format of sentence-transformers"
            )
        if expansion is not None and layout.query_length not in (None, expansion.length):
            raise RivalsError(
                "PyLate's format cuts queries at the expansion's length; set query_length to None or to that"
            )
    modules = [("", f"{_BASE}.transformer.Transformer" if not pylate else "sentence_transformers.models.Transformer")]
    dense = "pylate.models.Dense.Dense" if pylate else f"{_BASE}.dense.Dense"
    modules += [(dense_folder(index), dense) for index in range(len(layout.head))]
    for index, part in enumerate(layout.head):
        config: dict[str, Any] = {
            "in_features": part.in_features,
            "out_features": part.out_features,
            "bias": part.bias,
            "activation_function": part.activation,
        }
        if not pylate:
            config |= {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        if part.residual:
            config["use_residual"] = True
        write_json(folder / dense_folder(index) / "config.json", config)
    settings: dict[str, Any] = {"max_seq_length": max_length, "do_lower_case": lower_case}
    extra: dict[str, Any] = {
        "model_type": "ColBERT" if pylate else "MultiVectorEncoder",
        "__version__": {
            "sentence_transformers": "6.2.0",
            "transformers": transformers.__version__,
            "pytorch": torch.__version__,
        },
        "prompts": dict(layout.prompts),
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim" if pylate and layout.similarity == "maxsim" else layout.similarity,
    }
    if pylate:
        others = {name: text for name, text in layout.prompts.items() if name not in ("query", "document")}
        extra |= {
            "prompts": others,
            "query_prefix": layout.prompts.get("query", ""),
            "document_prefix": layout.prompts.get("document", ""),
            "query_length": expansion.length if expansion else layout.query_length or max_length,
            "document_length": layout.document_length or max_length,
            "do_query_expansion": expansion is not None,
            "attend_to_expansion_tokens": expansion is not None and expansion.attend,
            "skiplist_words": list(layout.skip),
        }
    else:
        at = len(layout.head) + 1
        modules.append(
            (
                f"{at}_MultiVectorMask",
                "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            )
        )
        modules.append((f"{at + 1}_Normalize", f"{_BASE}.normalize.Normalize"))
        mask = {"skiplist_words": list(layout.skip), "skiplist_tasks": ["document"], "keep_only_token_ids": None}
        write_json(folder / modules[-2][0] / "config.json", mask)
        names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        write_json(folder / modules[-1][0] / "config.json", names)
        stated = {"query_length": layout.query_length, "document_length": layout.document_length}
        settings |= {name: value for name, value in stated.items() if value is not None}
        if expansion is not None:
            settings["query_expansion"] = {
                "strategy": "fixed" if expansion.fixed else "min",
                "attend": expansion.attend,
                "token": expansion.token,
                "length": expansion.length,
            }
    listing = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", listing)
    write_json(folder / "sentence_bert_config.json", settings)
    write_json(folder / _CONFIG, extra)
