"""Word vectors: reading them from a file, and hard-debiasing them (Bolukbasi et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def unit(vectors: Any) -> np.ndarray:
    """Vectors of any shape (…, D) at length 1, in float64; a zero vector stays."""
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def gender_direction(vectors: Mapping[str, Any], definitional_pairs: Iterable[Sequence[str]]) -> np.ndarray:
    """First principal component of the pairs' deviations from their own means (unit length; she − he positive)."""
    pairs = [pair for pair in definitional_pairs if all(word in vectors for word in pair)]
    if not pairs:
        raise ValueError(
            "the word vectors have none of the definitional pairs; is their vocabulary lower-case English?"
        )
    deviations = []
    for pair in pairs:
        members = unit(np.stack([np.asarray(vectors[word], np.float64) for word in pair]))
        deviations.append(members - members.mean(0))
    direction = np.linalg.svd(np.concatenate(deviations), full_matrices=False)[2][0]
    if "she" in vectors and "he" in vectors:
        direction = direction * (1 if (np.asarray(vectors["she"]) - np.asarray(vectors["he"])) @ direction >= 0 else -1)
    return direction


def hard_debias(
    vectors: Mapping[str, Any],
    *,
    definitional_pairs: Sequence[Sequence[str]],
    equalize_pairs: Sequence[Sequence[str]],
    gender_specific: Iterable[str],
) -> dict[str, np.ndarray]:
    """Hard-debiased unit vectors (Bolukbasi et al. 2016), as the authors' code does it: neutralize, then equalize.

    Every word outside `gender_specific` loses its component along the gender direction; then both words of each
    equalize pair (lower-case, Title and UPPER forms) are set at equal distance on either side of that direction's
    null space. Pairs with a missing word are skipped. Input vectors are scaled to unit length first.
    """
    direction = gender_direction(vectors, definitional_pairs)
    names = list(vectors)
    row = {word: i for i, word in enumerate(names)}
    matrix = unit(np.stack([np.asarray(vectors[word], np.float64) for word in names]))
    specific = set(gender_specific)
    neutral = np.array([word not in specific for word in names])
    matrix[neutral] -= np.outer(matrix[neutral] @ direction, direction)
    matrix = unit(matrix)
    forms = [(form(a), form(b)) for a, b in equalize_pairs for form in (str.lower, str.title, str.upper)]
    for a, b in dict.fromkeys(forms):
        if a in row and b in row:
            middle = (matrix[row[a]] + matrix[row[b]]) / 2
            middle = middle - (middle @ direction) * direction
            offset = np.sqrt(max(0.0, 1 - middle @ middle))
            if (matrix[row[a]] - matrix[row[b]]) @ direction < 0:
                offset = -offset
            matrix[row[a]], matrix[row[b]] = middle + offset * direction, middle - offset * direction
    return dict(zip(names, unit(matrix)))


def load_vectors(path: str | Path) -> dict[str, np.ndarray]:
    """Word vectors from a file: word2vec .bin(.gz), word2vec or GloVe text, or .safetensors.

    A .safetensors file holds one matrix (words, width), and NAME.json beside it the list of its words in order.
    Other formats need gensim, whose own .kv files are refused: they are pickles.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"vectors {str(path)!r}: no such file (word2vec .bin or .txt, GloVe .txt, or .safetensors)")
    if path.suffix == ".safetensors":
        import json

        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        listing = path.with_suffix(".json")
        if not listing.is_file():
            raise ValueError(f"vectors {str(path)!r}: its list of words, {listing.name}, is not beside it")
        names = json.loads(listing.read_text(encoding="utf-8"))
        try:
            tensors = list(load_file(path).values())
        except SafetensorError as error:
            raise ValueError(f"vectors {str(path)!r}: damaged or incomplete ({error})") from error
        if len(tensors) != 1 or tensors[0].ndim != 2 or len(tensors[0]) != len(names):
            raise ValueError(f"vectors {str(path)!r}: needs one matrix with a row for each of the {len(names)} words")
        return dict(zip(names, tensors[0].astype(np.float32)))
    if path.suffix in {".kv", ".pkl", ".model"}:
        raise ValueError(f"vectors {str(path)!r}: pickled files are refused; save as word2vec .bin or .txt")
    try:
        from gensim.models import KeyedVectors
    except ImportError as error:
        raise ValueError("reading word vectors needs gensim: pip install 'evenhand[vectors]'") from error
    binary = ".bin" in path.suffixes
    header = True
    if not binary:
        import gzip

        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            header = len(file.readline().split()) == 2
    try:
        found = KeyedVectors.load_word2vec_format(str(path), binary=binary, no_header=not header)
    except (ValueError, EOFError) as error:
        raise ValueError(f"vectors {str(path)!r}: not word2vec or GloVe format ({error})") from error
    return dict(zip(found.index_to_key, found.vectors))
