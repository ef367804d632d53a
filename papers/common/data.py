"""The real data that the scripts test on, read from RIVALS_DATA (default ../shared/data beside the repository)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rivals import lists
from rivals.errors import RivalsError

ROOT = Path(__file__).resolve().parents[2]


def folder(name: str) -> Path:
    """Return the folder of a data set; a missing one is an error that says where it was looked for."""
    path = Path(os.environ.get("RIVALS_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_dir():
        raise RivalsError(f"there is no data set in {path}; set RIVALS_DATA to the folder that holds {name}")
    return path


def generator(seed: int) -> torch.Generator:
    """Return a torch generator of a seed."""
    return torch.Generator().manual_seed(seed)


class Split(NamedTuple):
    """Features and labels of train, validation and test."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


class RankedSplit(NamedTuple):
    """Lists of feature vectors [Q, C, F], relevance [Q, C] and mask [Q, C] of train, validation and test."""

    train: tuple[Tensor, Tensor, Tensor]
    validation: tuple[Tensor, Tensor, Tensor]
    test: tuple[Tensor, Tensor, Tensor]


def standardise(split: Split) -> Split:
    """Bring features to mean 0 and deviation 1, both of the training part."""
    mean, deviation = split.train[0].mean(0), split.train[0].std(0).clamp(min=1e-6)
    return Split(*(((features - mean) / deviation, labels) for features, labels in split))


def graded_lists(seed: int, *, dense_features: int = 64) -> RankedSplit:
    """LightGBM's ranking example: 201 queries, grades 0 to 4, split 121 / 40 / 40 by query at random.

    The 300 sparse features are standardised and turned to their leading principal components of the training part.
    """
    from scipy.sparse import csr_matrix

    stored = np.load(folder("lightgbm_rank") / "train.npz", allow_pickle=False)
    features = csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=stored["shape"]).toarray()
    _, first = np.unique(stored["qid"], return_index=True)
    offsets = np.concatenate([np.sort(first), [len(features)]]).astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(offsets) - 1)
    mask = torch.from_numpy(lists.pad_mask(offsets))
    relevance = torch.from_numpy(lists.pad(stored["y"].astype(np.float32), offsets, fill=0))
    rows = torch.from_numpy(lists.pad(np.arange(len(features)), offsets, fill=0))
    kept = mask[order[:121]]
    inside = features[rows[order[:121]][kept].numpy()]
    mean, deviation = inside.mean(0), inside.std(0) + 1e-6
    _, _, directions = np.linalg.svd((inside - mean) / deviation, full_matrices=False)
    projected = torch.from_numpy((((features - mean) / deviation) @ directions[:dense_features].T).astype(np.float32))
    projected = projected / projected.std(0).clamp(min=1e-6)

    def part(chosen: Any) -> tuple[Tensor, Tensor, Tensor]:
        return projected[rows[chosen]], relevance[chosen], mask[chosen]

    return RankedSplit(part(order[:121]), part(order[121:161]), part(order[161:]))


def multilabel(name: str, seed: int) -> Split:
    """A Mulan set with features standardised and a quarter of its training part as validation; targets float [N, L]."""
    stored = np.load(folder("multilabel") / f"{name}.npz", allow_pickle=False)

    def features(part: str) -> Tensor:
        if f"X_{part}" in stored:
            return torch.from_numpy(stored[f"X_{part}"].astype(np.float32))
        from scipy.sparse import csr_matrix

        parts = tuple(stored[f"X_{part}_{piece}"] for piece in ("data", "indices", "indptr"))
        return torch.from_numpy(csr_matrix(parts, shape=stored[f"X_{part}_shape"]).toarray().astype(np.float32))

    labels = torch.from_numpy(stored["Y_train"].astype(np.float32))
    order = torch.randperm(len(labels), generator=generator(seed))
    held, kept = order[: len(order) // 4], order[len(order) // 4 :]
    x, test = features("train"), (features("test"), torch.from_numpy(stored["Y_test"].astype(np.float32)))
    return standardise(Split((x[kept], labels[kept]), (x[held], labels[held]), test))


def tabular(name: str, seed: int) -> Split:
    """An imbalanced set (mammography, oil_spill, phoneme, haberman, ecoli, glass), stratified 60 / 20 / 20."""
    stored = np.load(folder("imbalanced_tabular") / f"{name}.npz", allow_pickle=False)
    features, labels = torch.from_numpy(stored["X"].astype(np.float32)), torch.from_numpy(stored["y"].astype(np.int64))
    return standardise(stratified(features, labels, seed))


def stratified(features: Tensor, labels: Tensor, seed: int) -> Split:
    """Split examples 60 / 20 / 20, class by class."""
    place = torch.zeros(len(labels))
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=generator(seed))
        place[rows[order]] = (torch.arange(len(rows)) + 0.5) / len(rows)
    parts = (place < 0.6, (place >= 0.6) & (place < 0.8), place >= 0.8)
    return Split(*((features[part], labels[part]) for part in parts))


def digits(seed: int) -> Split:
    """scikit-learn's 8 x 8 handwritten digits, 10 classes, stratified 60 / 20 / 20, pixels in 0..1."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return stratified(torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target), seed)


class Characters(NamedTuple):
    """Omniglot drawings float [N, 1, size, size] and their character, of characters seen in training and of new ones."""

    train: tuple[Tensor, Tensor]
    new: tuple[Tensor, Tensor]


@functools.lru_cache(maxsize=2)
def characters(size: int = 21) -> Characters:
    """Omniglot: the 136 characters of the first small set to train on, the 106 that only the second has as new."""
    stored = np.load(folder("omniglot_small") / "characters.npz", allow_pickle=False)
    pictures = np.unpackbits(stored["packed"], axis=-1)[:, :11025].reshape(-1, 1, 105, 105)
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(pictures).float(), size)
    label, first = torch.from_numpy(stored["character"].astype(np.int64)), torch.from_numpy(stored["in_small1"])
    return Characters((small[first], label[first]), (small[~first], label[~first]))


class Interactions(NamedTuple):
    """Users, items and the train, validation and test interactions int64[n, 2] (user, item)."""

    users: int
    items: int
    train: Tensor
    validation: Tensor
    test: Tensor


@functools.lru_cache(maxsize=1)
def films(least: int = 5) -> Interactions:
    """MovieLens latest-small as likes (4 stars and up): a user's last like is test, the one before validation."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder("movielens_small") / "ratings.parquet").to_pydict()
    rating, time = np.array(table["rating"]), np.array(table["timestamp"])
    liked = rating >= 4
    user, item, time = np.array(table["userId"])[liked], np.array(table["movieId"])[liked], time[liked]
    counts = np.bincount(item)
    kept = counts[item] >= least
    user, item, time = user[kept], item[kept], time[kept]
    many = np.bincount(user)[user] >= least
    user, item, time = user[many], item[many], time[many]
    _, user = np.unique(user, return_inverse=True)
    _, item = np.unique(item, return_inverse=True)
    order = np.lexsort((item, time, user))
    pairs = torch.from_numpy(np.stack([user[order], item[order]], 1))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user))])
    last = torch.from_numpy(offsets[1:] - 1)
    inside = torch.ones(len(pairs), dtype=torch.bool)
    inside[last] = inside[last - 1] = False
    return Interactions(int(user.max()) + 1, int(item.max()) + 1, pairs[inside], pairs[last - 1], pairs[last])


def sentence_vectors(texts: list[str], name: str) -> Tensor:
    """MiniLM vectors of texts, kept in papers/.cache under a name and a hash of the texts."""
    import hashlib

    from rivals.models import Encoder

    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    path = Path(__file__).resolve().parents[1] / ".cache" / f"{name}-{digest}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        vectors = Encoder.load("all-MiniLM-L6-v2", dtype="fast").encode(texts, role="document", normalize=True)
        np.save(path, vectors.astype(np.float32))
    return torch.from_numpy(np.load(path, allow_pickle=False))
