"""The folder format: read as sentence-transformers reads it, written so that it reads it, faults told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivals.errors import ModelError
from rivals.models import CrossEncoder, Encoder, resolve_model
from rivals.models.folder import DenseSpec, Normalize, PoolingSpec, read_layout
from tests.models.tiny import TEXTS, write_modules

NEW = "sentence_transformers.sentence_transformer.modules.{}.{}"
TRANSFORMER = ("sentence_transformers.models.Transformer", "", None)
TANH = "torch.nn.modules.activation.Tanh"


def pooling(**flags: Any) -> tuple[str, str, dict[str, Any]]:
    return "sentence_transformers.models.Pooling", "1_Pooling", {"word_embedding_dimension": 32, **flags}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


def sentence_transformer(folder: Path) -> Any:
    pytest.importorskip("sentence_transformers", reason="the reference is not installed")
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def make_encoder(folder: Path, kinds: list[Any], seed: int = 0, **extra: Any) -> Encoder:
    """Write modules beside a tiny model, with random Dense weights where asked for, and load it."""
    import torch
    from safetensors.torch import save_file

    write_modules(folder, kinds, **extra)
    for kind, path, config in kinds:
        if kind.endswith("Dense"):
            generator = torch.Generator().manual_seed(seed)
            weights = {"linear.weight": torch.randn(config["out_features"], config["in_features"], generator=generator)}
            if config.get("bias", True):
                weights["linear.bias"] = torch.randn(config["out_features"], generator=generator)
            save_file(weights, str(folder / path / "model.safetensors"))
    return Encoder.load(folder, device="cpu", dtype="float32")


def check_against_reference(encoder: Encoder, folder: Path, saved: Path, **options: Any) -> None:
    ours = encoder.encode(TEXTS, progress=False)
    reference = sentence_transformer(folder).encode(TEXTS, **options)
    assert ours.shape == reference.shape
    np.testing.assert_allclose(ours, reference, rtol=2e-4, atol=2e-5)
    encoder.save(saved)
    np.testing.assert_allclose(sentence_transformer(saved).encode(TEXTS, **options), reference, rtol=2e-4, atol=2e-5)
    again = Encoder.load(saved, device="cpu", dtype="float32")
    assert again.encode(TEXTS, progress=False).tobytes() == ours.tobytes()
    assert again.fingerprint() == encoder.fingerprint()


MODES = ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_with_dense_equals_the_reference(tiny: Path, tmp_path: Path, mode: str) -> None:
    flags = {f"pooling_mode_{name}": name == mode for name in MODES}
    dense = {"in_features": 32, "out_features": 12, "bias": True, "activation_function": TANH}
    kinds = [TRANSFORMER, pooling(**flags), ("sentence_transformers.models.Dense", "2_Dense", dense)]
    encoder = make_encoder(tiny, kinds)
    assert encoder.dimension == 12
    check_against_reference(encoder, tiny, tmp_path / "saved")


def test_several_modes_in_any_order_and_new_spellings(tiny: Path, tmp_path: Path) -> None:
    config = {"embedding_dimension": 32, "pooling_mode": ["max", "cls", "mean"], "include_prompt": True}
    kinds = [
        ("sentence_transformers.base.modules.transformer.Transformer", "", None),
        (NEW.format("pooling", "Pooling"), "1_Pooling", config),
        ("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize", {}),
    ]
    encoder = make_encoder(tiny, kinds)
    assert encoder.dimension == 96
    check_against_reference(encoder, tiny, tmp_path / "saved")


def test_a_folder_written_by_the_reference_is_read(tiny: Path, tmp_path: Path) -> None:
    reference = sentence_transformer(tiny)
    reference.max_seq_length = 12
    reference.save(str(tmp_path / "theirs"))
    encoder = Encoder.load(tmp_path / "theirs", device="cpu", dtype="float32")
    assert encoder.max_length == 12
    np.testing.assert_allclose(encoder.encode(TEXTS, progress=False), reference.encode(TEXTS), rtol=2e-4, atol=2e-5)


def test_a_plain_transformers_folder_is_mean_pooled(tiny: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny, device="cpu", dtype="float32")
    assert encoder.layout.pooling == PoolingSpec(("mean",))
    check_against_reference(encoder, tiny, tmp_path / "saved")


@pytest.mark.parametrize("include", [True, False])
def test_prompts_equal_the_reference(tiny: Path, tmp_path: Path, include: bool) -> None:
    kinds = [TRANSFORMER, pooling(pooling_mode_mean_tokens=True, include_prompt=include)]
    prompts = {"query": "query: ", "passage": "passage: the "}
    encoder = make_encoder(tiny, kinds, prompts=prompts, default_prompt_name="passage")
    saved = encoder.save(tmp_path / "saved")
    for folder in (tiny, saved):
        reference = sentence_transformer(folder)
        loaded = Encoder.load(folder, device="cpu", dtype="float32")
        for role, expected in (
            ("query", reference.encode_query(TEXTS)),
            ("document", reference.encode(TEXTS, prompt_name="passage")),
            (None, reference.encode(TEXTS)),
        ):
            got = loaded.encode(TEXTS, role=role, progress=False)
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
    plain = encoder.encode(TEXTS, prompt="", progress=False)
    assert np.abs(plain - encoder.encode(TEXTS, role="query", progress=False)).max() > 1e-3


def test_minilm_equals_the_reference_before_and_after_saving(minilm: Encoder, tmp_path: Path) -> None:
    texts = [*TEXTS, "What are the symptoms of influenza?", "Hepatitis B is a liver infection. " * 60, "naïve café ☃"]
    ours = minilm.encode(texts, progress=False)
    reference = sentence_transformer(resolve_model("all-MiniLM-L6-v2"))
    assert cosine(ours, reference.encode(texts)).min() >= 0.99999
    saved = minilm.save(tmp_path / "saved")
    assert cosine(ours, sentence_transformer(saved).encode(texts)).min() >= 0.99999
    from safetensors.torch import load_file

    before = load_file(str(resolve_model("all-MiniLM-L6-v2") / "model.safetensors"))
    after = load_file(str(saved / "model.safetensors"))
    assert after.keys() == before.keys() - {"embeddings.position_ids"}
    assert all(after[name].equal(before[name]) for name in after)
    assert oct((saved / "model.safetensors").stat().st_mode & 0o777) == "0o644"


def test_the_layout_of_minilm_is_read() -> None:
    layout = read_layout(resolve_model("sentence-transformers/all-MiniLM-L6-v2"))
    assert (layout.max_length, layout.pooling, layout.head) == (256, PoolingSpec(("mean",)), (Normalize(),))


def test_lower_case_is_done_by_the_folder(tiny: Path) -> None:
    write_modules(tiny, [TRANSFORMER, pooling(pooling_mode_mean_tokens=True)])
    (tiny / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": True}))
    encoder = Encoder.load(tiny, device="cpu", dtype="float32")
    upper, lower = encoder.encode(["THE CAT", "the cat"], progress=False)
    assert np.array_equal(upper, lower)


def damage_modules(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"idx": 0')


def damage_weights(folder: Path) -> None:
    place = folder / "model.safetensors"
    place.write_bytes(place.read_bytes()[:2000])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def lose_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_pickle(folder: Path) -> None:
    lose_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def lose_one_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(str(folder / "model.safetensors"))
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-model"}')


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe{{")


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def lose_everything(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_modules, r"modules.json: cannot be read as JSON"),
        (damage_weights, r"model.safetensors: the weights are damaged or cut short"),
        (empty_weights, r"model.safetensors: the weights are damaged or cut short"),
        (lose_weights, r"no model.safetensors here"),
        (only_pickle, r"only pytorch_model.bin .*save_pretrained"),
        (lose_one_tensor, r"1 weights are missing \(.*encoder.layer.1.output.dense.weight"),
        (other_shape, r"tiny: .*(another shape|cannot load)"),
        (unknown_architecture, r"config.json: not a model configuration"),
        (damage_config, r"config.json: cannot be read as JSON"),
        (damage_tokenizer, r"tokenizer.json: cannot be read as JSON"),
        (lose_everything, r"not a model folder"),
    ],
)
def test_a_damaged_folder_gives_one_clear_line(tiny: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(tiny)
    for loader in (Encoder.load, CrossEncoder.load):
        with pytest.raises(ModelError, match=words) as caught:
            loader(tiny)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([TRANSFORMER, ("some.package.Pooling", "1_Pooling", {})], "module type 'some.package.Pooling' is not known"),
        ([TRANSFORMER, pooling(), ("sentence_transformers.models.CNN", "2_CNN", {})], "CNN' is not known"),
        ([TRANSFORMER], "no Pooling after the Transformer"),
        ([pooling(), TRANSFORMER], "one Transformer first"),
        ([TRANSFORMER, ("sentence_transformers.models.Pooling", "../else", None)], "leads out of the model folder"),
        ([TRANSFORMER, pooling(pooling_mode="median")], "pooling mode 'median' is not known"),
        ([TRANSFORMER, ("sentence_transformers.models.Pooling", "1_Pooling", None)], "this file is missing"),
        (
            [TRANSFORMER, pooling(), ("sentence_transformers.models.Dense", "2_Dense", {"in_features": 32})],
            "in_features and out_features",
        ),
        (
            [
                TRANSFORMER,
                pooling(),
                (
                    "sentence_transformers.models.Dense",
                    "2_Dense",
                    {"in_features": 32, "out_features": 8, "activation_function": "os.system"},
                ),
            ],
            "activation 'os.system' is not known",
        ),
        (
            [
                TRANSFORMER,
                pooling(),
                (
                    "sentence_transformers.models.Dense",
                    "2_Dense",
                    {"in_features": 32, "out_features": 8, "module_input_name": "token_embeddings"},
                ),
            ],
            "only sentence_embedding",
        ),
    ],
)
def test_modules_that_make_no_encoder_are_refused(tiny: Path, kinds: list[Any], words: str) -> None:
    write_modules(tiny, kinds)
    with pytest.raises(ModelError, match=words):
        Encoder.load(tiny)


def test_dense_weights_of_another_size_are_refused(tiny: Path) -> None:
    dense = {"in_features": 32, "out_features": 12, "bias": True, "activation_function": TANH}
    kinds = [TRANSFORMER, pooling(), ("sentence_transformers.models.Dense", "2_Dense", dense)]
    make_encoder(tiny, kinds)
    (tiny / "2_Dense" / "config.json").write_text(json.dumps(dense | {"out_features": 13}))
    with pytest.raises(ModelError, match="do not fit the sizes"):
        Encoder.load(tiny)
    assert isinstance(read_layout(tiny).head[0], DenseSpec)


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "a/b/c", "", "  "])
def test_a_name_that_is_no_folder_and_no_model_is_refused_without_network(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model folder|neither modules.json"):
        Encoder.load(name)


def test_a_file_is_no_model(tiny: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(tiny / "config.json")


def test_a_name_the_hub_does_not_give_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*arguments: Any, **options: Any) -> str:
        raise OSError("no connection\nwith details")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=r"'org/model' .* could not be downloaded: no connection$"):
        resolve_model("org/model")


def test_a_save_that_fails_leaves_the_old_folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(tiny, device="cpu", dtype="float32")
    saved = encoder.save(tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in saved.iterdir() if path.is_file()}

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(encoder.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        encoder.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir() if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "tiny"]
