"""Who holds which text: a corpus divided among clients. Pure functions of a random generator.

N clients, T texts, L labels. iid and quantity skew are the division of one label. Sources: label distributions by
Dirichlet as in Hsu et al. 2019 (arXiv 1909.06335), quantities and clusters as in Lin et al. 2022 (FedNLP).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TABLE = 50_000_000  # clients × labels, at most
VOCABULARY = 20_000  # terms of a text's vector


def sizes(num_texts: int, clients: int, concentration: float | None, draw: np.random.Generator) -> np.ndarray:
    """(N,) texts a client is to hold, at least one: equal, or by Dirichlet(concentration). Fractions; they add to T."""
    if clients > num_texts:
        raise ValueError(f"federated.clients: {clients} clients, but the corpus has only {num_texts} texts; lower it")
    if concentration is None:
        return np.full(clients, num_texts / clients)
    return 1 + (num_texts - clients) * draw.dirichlet(np.full(clients, concentration))


def label_shares(alpha: float, prior_L: np.ndarray, clients: int, draw: np.random.Generator) -> np.ndarray:
    """(N, L) each client's own distribution of labels, of mean `prior_L`: Dirichlet(alpha · L · prior).

    Where labels are equally frequent every one has concentration alpha. Large alpha: all clients like the corpus.
    """
    return draw.dirichlet(alpha * len(prior_L) * prior_L, size=clients)


def table(size_N: np.ndarray, share_NL: np.ndarray, count_L: np.ndarray, rounds: int = 100) -> np.ndarray:
    """(N, L) texts of each label that a client is to hold: the shares, scaled until all texts are given away.

    Columns add to count_L exactly, rows to size_N as nearly as the shares allow (iterative proportional fitting).
    """
    wanted = share_NL * size_N[:, None] + 1e-12
    for _ in range(rounds):
        wanted *= count_L / wanted.sum(axis=0)
        wanted *= (size_N / wanted.sum(axis=1))[:, None]
    return wanted * (count_L / wanted.sum(axis=0))


def deal(label_T: np.ndarray, wanted_NL: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(T,) the client of each text: the texts of a label are shuffled and cut as the label's column says."""
    owner = np.empty(len(label_T), dtype=np.int32)
    for label in range(wanted_NL.shape[1]):
        (own,) = np.nonzero(label_T == label)
        shift = 1e-6 + draw.random() * (1 - 2e-6)  # what is rounded off goes to no client in particular
        ends = np.minimum(np.floor(np.cumsum(wanted_NL[:, label]) + shift).astype(np.int64), len(own))
        ends[-1] = len(own)
        owner[draw.permutation(own)] = np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(ends, prepend=0))
    return owner


def divide(
    label_T: np.ndarray, clients: int, *, alpha: float | None, concentration: float | None, seed: int
) -> np.ndarray:
    """(T,) the client of each text. alpha: of the label skew, None for none; concentration: of the numbers of texts.

    label_T: labels as numbers 0 … L − 1, each of which occurs. ValueError, one line, where a client would get nothing.
    """
    draw = np.random.default_rng([seed, 0xFED])
    if alpha is None:
        label_T = np.zeros(len(label_T), dtype=np.int32)
    count_L = np.bincount(label_T)
    if clients * len(count_L) > TABLE:
        raise ValueError(f"federated.label: {len(count_L):,} values are too many for {clients:,} clients; use key")
    size_N = sizes(len(label_T), clients, concentration, draw)
    share_NL = np.ones((clients, 1)) if alpha is None else label_shares(alpha, count_L / len(label_T), clients, draw)
    owner = deal(label_T, table(size_N, share_NL, count_L), draw)
    (empty,) = np.nonzero(np.bincount(owner, minlength=clients) == 0)
    if len(empty):
        raise ValueError(
            f"federated.clients: {len(empty)} of {clients} clients, client {empty[0]} first, would hold no text; "
            "use fewer clients, a larger federated.alpha or federated.quantity, or another federated.partition_seed"
        )
    return owner


def numbered(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Values as numbers, in alphabetical order, and the values."""
    names, number_T = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    return number_T.astype(np.int32), names.tolist()


def clusters(texts: Sequence[str], number: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Clusters of texts as labels: k-means of TF-IDF vectors; a cluster's name is its heaviest three words."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    if number > len(texts):
        raise ValueError(f"federated.clusters: {number} clusters, but the corpus has only {len(texts)} texts")
    words = TfidfVectorizer(max_features=VOCABULARY, dtype=np.float32, sublinear_tf=True)
    vectors = words.fit_transform(texts)
    fitted = MiniBatchKMeans(number, random_state=seed, n_init=3).fit(vectors)
    vocabulary = words.get_feature_names_out()
    heaviest = np.argsort(-fitted.cluster_centers_, axis=1, kind="stable")[:, :3]
    used, label_T = np.unique(fitted.labels_, return_inverse=True)
    return label_T.astype(np.int32), [f"{k} {' '.join(vocabulary[heaviest[k]])}" for k in used]
