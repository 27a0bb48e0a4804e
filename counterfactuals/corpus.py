"""Text sources by one name each: a Hub data set, local jsonl(.gz) / txt / parquet, or a folder of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".parquet")


def read_texts(
    source: str,
    *,
    subset: str | None = None,
    split: str = "train",
    text_field: str = "text",
    max_texts: int | None = None,
) -> Iterator[str]:
    """Yield the texts of `source` one by one, in constant memory; empty ones are left out.

    In .txt files a text is a paragraph (blank lines separate). A path that exists wins over a Hub name.
    Raises ValueError for a missing source or field, a broken line (with its number), or text that is not UTF-8.
    """
    texts = _local(Path(source), text_field) if _is_local(source) else _hub(source, subset, split, text_field)
    count = 0
    for text in texts:
        if text.strip():
            yield _without_surrogates(text)
            count += 1
            if count == max_texts:
                return
    if not count:
        raise ValueError(f"data.source {source}: no text in it")


def _without_surrogates(text: str) -> str:
    """JSON may hold half a surrogate pair, which no tokenizer takes: it becomes U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def fingerprint(
    source: str,
    *,
    subset: str | None = None,
    split: str = "train",
    text_field: str = "text",
    max_texts: int | None = None,
) -> str:
    """sha256 over what decides the texts: for local files their names, sizes and modification times."""
    facts: list[object] = [source, subset, split, text_field, max_texts]
    if _is_local(source):
        facts = [text_field, max_texts]
        facts += [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(Path(source))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _is_local(source: str) -> bool:
    return Path(source).exists() or source.endswith(SUFFIXES) or source.startswith((".", "/", "~"))


def _files(path: Path) -> list[Path]:
    path = path.expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        if not files:
            raise ValueError(f"data.source {path}: no {', '.join(SUFFIXES)} file in this folder")
        return files
    if not path.exists():
        raise ValueError(f"data.source {path}: no such file or folder")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"data.source {path}: cannot read this kind of file; known: {', '.join(SUFFIXES)}")
    return [path]


def _local(path: Path, text_field: str) -> Iterator[str]:
    for file in _files(path):
        if file.suffix == ".parquet":
            yield from _parquet(file, text_field)
            continue
        opener = gzip.open if file.suffix == ".gz" else open
        try:
            with opener(file, "rt", encoding="utf-8") as stream:
                yield from (
                    _paragraphs(stream)
                    if file.name.endswith((".txt", ".txt.gz"))
                    else _json_lines(stream, file, text_field)
                )
        except UnicodeDecodeError as error:
            raise ValueError(f"data.source {file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"data.source {file}: damaged gzip file ({error})") from None


def _json_lines(stream: IO[str], file: Path, text_field: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"data.source {file}, line {number}: not JSON ({error.msg})") from None
        if not isinstance(row, dict) or not isinstance(row.get(text_field), str):
            known = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"data.source {file}, line {number}: no text field {text_field!r}; found: {known}")
        yield row[text_field]


def _paragraphs(stream: IO[str]) -> Iterator[str]:
    lines: list[str] = []
    for line in stream:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines).rstrip("\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\n")


def _parquet(file: Path, text_field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        if text_field not in table.schema_arrow.names:
            raise ValueError(
                f"data.source {file}: no column {text_field!r}; found: {', '.join(table.schema_arrow.names)}"
            )
        for batch in table.iter_batches(columns=[text_field]):
            yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"data.source {file}: not a readable parquet file ({error})") from None


def _hub(source: str, subset: str | None, split: str, text_field: str) -> Iterator[str]:
    import datasets

    try:
        rows = datasets.load_dataset(source, subset, split=split, streaming=True)
        for row in rows:
            if not isinstance(row.get(text_field), str):
                raise ValueError(f"data.source {source}: no text field {text_field!r}; found: {', '.join(row)}")
            yield row[text_field]
    except (OSError, RuntimeError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"data.source {source}: no such file here, and not to be had from the Hub ({reason}); "
            "name a local path, or check the network"
        ) from None
