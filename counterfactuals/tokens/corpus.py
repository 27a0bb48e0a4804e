"""Text sources by one name each: a Hub data set, local jsonl(.gz) / txt / parquet, or a folder of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".parquet")


@dataclass
class Corpus:
    """The texts of `read_texts`, as often as they are wanted.

    share: what part of the source the latest reader has read, None where that is not known (Hub).
    """

    source: str
    subset: str | None = None
    split: str = "train"
    text_field: str = "text"
    max_texts: int | None = None

    @property
    def _options(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key in _OPTIONS}

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.source, **self._options)

    def __post_init__(self) -> None:
        self._place = _Place()

    @property
    def share(self) -> float | None:
        return self._place.share(self.max_texts)

    def __iter__(self) -> Iterator[str]:
        self._place = _Place()
        for text in read_texts(self.source, **self._options, _place=self._place):
            self._place.texts += 1
            yield text


@dataclass
class _Place:
    """Where a reader is: bytes of the files (as they lie on disk) and texts."""

    total: int = 0
    before: int = 0  # bytes of the files that are done
    tell: Callable[[], int] = int  # bytes read of the present one
    texts: int = 0

    def share(self, max_texts: int | None) -> float | None:
        shares = [(self.before + self.tell()) / self.total] if self.total else []
        if max_texts:
            shares.append(self.texts / max_texts)
        return min(max(shares), 1.0) if shares else None


def read_texts(
    source: str,
    *,
    subset: str | None = None,
    split: str = "train",
    text_field: str = "text",
    max_texts: int | None = None,
    _place: _Place | None = None,
) -> Iterator[str]:
    """Yield the texts of `source` one by one, in constant memory; empty ones are left out.

    In .txt files a text is a paragraph (blank lines separate). A path that exists wins over a Hub name.
    Raises ValueError for a missing source or field, a broken line (with its number), or text that is not UTF-8.
    """
    if _is_local(source):
        texts = _local(Path(source), text_field, _place or _Place())
    else:
        texts = _hub(source, subset, split, text_field)
    count = 0
    for text in texts:
        if text.strip():
            yield _without_surrogates(text)
            count += 1
            if count == max_texts:
                return
    if not count:
        raise ValueError(f"data.source {source}: no text in it")


def units(texts: Iterable[str], paragraphs: bool) -> Iterator[tuple[str, str]]:
    """(id, text) of each text: t7; or of each of its lines that is not blank: t7p3, text 7, line 3."""
    for number, text in enumerate(texts, 1):
        if not paragraphs:
            yield f"t{number}", text
            continue
        for line, paragraph in enumerate(text.split("\n"), 1):
            if paragraph.strip():
                yield f"t{number}p{line}", paragraph


_OPTIONS = ("subset", "split", "text_field", "max_texts")
_BLOCK, _BLOCKS = 1 << 16, 1000  # bytes that are read at one place for a fingerprint, and places in all files


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
    """sha256 over what decides the texts: for local files their names, sizes and blocks of each, spread evenly.

    At most about 64 MB are read (two blocks of 64 kB of each file at the least), small corpora whole. A copy has the
    fingerprint of the original; a change that keeps the size is missed where it lies between the blocks.
    """
    facts: list[object] = [source, subset, split, text_field, max_texts]
    if _is_local(source):
        facts = [text_field, max_texts]
        files = _files(Path(source))
        num_blocks = max(2, _BLOCKS // len(files))
        facts += [(file.name, file.stat().st_size, _sampled(file, num_blocks)) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sampled(file: Path, num_blocks: int) -> str:
    """sha256 over that many blocks of a file, the first and the last among them."""
    digest = hashlib.sha256()
    if file.is_file():  # no pipe
        last = max(file.stat().st_size - _BLOCK, 0)
        with file.open("rb") as stream:
            step = max(last / (num_blocks - 1), _BLOCK)
            for start in sorted({min(round(i * step), last) for i in range(num_blocks)}):
                stream.seek(start)
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def _is_local(source: str) -> bool:
    return Path(source).exists() or source.endswith(SUFFIXES) or source.startswith((".", "/", "~"))


def _files(path: Path) -> list[Path]:
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES) and not file.is_dir())
        if not files:
            raise ValueError(f"data.source {path}: no {', '.join(SUFFIXES)} file in this folder")
        return files
    if not path.exists():
        raise ValueError(f"data.source {path}: no such file or folder")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"data.source {path}: cannot read this kind of file; known: {', '.join(SUFFIXES)}")
    return [path]


def _local(path: Path, text_field: str, place: _Place) -> Iterator[str]:
    files = _files(path)
    sizes = [file.stat().st_size for file in files]
    place.total = sum(sizes)
    for file, size in zip(files, sizes):
        with file.open("rb") as raw:
            place.tell = raw.tell
            try:
                yield from (
                    _parquet(file, text_field, place) if file.suffix == ".parquet" else _lines(file, raw, text_field)
                )
            finally:
                place.tell = int
        place.before += size


def _lines(file: Path, raw: IO[bytes], text_field: str) -> Iterator[str]:
    try:
        stream = io.TextIOWrapper(_binary(file, raw), encoding="utf-8-sig")
        if file.name.endswith((".txt", ".txt.gz")):
            yield from _paragraphs(stream)
        else:
            yield from _json_lines(stream, file, text_field)
    except UnicodeDecodeError:
        raw.seek(0)
        raise ValueError(
            f"data.source {file}, line {_first_broken(_binary(file, raw))}: not UTF-8; convert it, e.g. with iconv"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"data.source {file}: damaged gzip file ({error})") from None


def _binary(file: Path, raw: IO[bytes]) -> Any:
    return gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw


def _first_broken(lines: IO[bytes]) -> int:
    """The first line that is not UTF-8; the decoder that found it knows only its place in a block."""
    for number, line in enumerate(lines, 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    raise ValueError("the file changed while it was read")


def _json_lines(stream: IO[str], file: Path, text_field: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"data.source {file}, line {number}: not JSON ({_short(str(error))})") from None
        if not isinstance(row, dict):
            raise ValueError(f"data.source {file}, line {number}: no object with a text field, but {_kind(row)}")
        if text_field not in row:
            raise ValueError(f"data.source {file}, line {number}: {_no_field(text_field, row)}")
        if not isinstance(row[text_field], str):
            raise ValueError(
                f"data.source {file}, line {number}: field {text_field!r} is no text, but {_kind(row[text_field])}"
            )
        yield row[text_field]


def _no_field(text_field: str, known: Iterable[str]) -> str:
    found = _short(", ".join(known)) or "nothing"
    return f"no text field {text_field!r}; found: {found}; name it with text_field"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _short(words: str) -> str:
    """One line of at most 200 characters."""
    return textwrap.shorten(words, 200, placeholder=" …")


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


def _parquet(file: Path, text_field: str, place: _Place) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        if text_field not in table.schema_arrow.names:
            raise ValueError(f"data.source {file}: {_no_field(text_field, table.schema_arrow.names)}")
        kind = table.schema_arrow.field(text_field).type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if not pyarrow.types.is_string(kind) and not pyarrow.types.is_large_string(kind):
            raise ValueError(f"data.source {file}: field {text_field!r} is no text, but {_short(str(kind))}")
        rows, all_rows, size = 0, max(table.metadata.num_rows, 1), file.stat().st_size
        for batch in table.iter_batches(columns=[text_field]):
            rows += batch.num_rows
            place.tell = partial(round, size * rows / all_rows)
            yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
    except UnicodeDecodeError:
        raise ValueError(f"data.source {file}: a text that is not UTF-8 after text {place.texts}") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"data.source {file}: not a readable parquet file ({_short(str(error))})") from None


def _hub(source: str, subset: str | None, split: str, text_field: str) -> Iterator[str]:
    import datasets

    try:
        rows = datasets.load_dataset(source, subset, split=split, streaming=True)
        for row in rows:
            if not isinstance(row.get(text_field), str):
                raise ValueError(f"data.source {source}: {_no_field(text_field, row)}")
            yield row[text_field]
    except (OSError, RuntimeError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"data.source {source}: no such file here, and not to be had from the Hub ({_short(str(error))}); "
            "name a local path, or check the network"
        ) from None
