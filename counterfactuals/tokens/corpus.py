"""Text sources by one name each: a Hub data set, a local file, or a folder of files.

Files are read here, not by `datasets`: rows may differ in their other fields, a mistake is told with its line, and
nothing is copied into a cache.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

_BLOCK, _BLOCKS = 1 << 16, 1000  # bytes that are read at one place for a fingerprint, and places in all files
ROLES = ("user", "assistant")  # of prompt and completion
Rows = Iterator[tuple[str, Any]]  # where a text stands, and the text, or what stands in its place


@dataclass
class Corpus:
    """The texts of a source, one by one, as often as they are wanted, in constant memory.

    source: a path that exists, or a name on the Hub. Files: .jsonl, .json, .csv, .tsv, .txt (a text is a paragraph,
    blank lines separate), each also .gz, .bz2, .xz or .zst; .parquet; a folder of them, nested ones too; a folder that
    `datasets` saved. A .json file that holds one list is read at once. subset, split: of a data set. text_field: which
    column or key. max_texts: no more than these. Texts that are empty or null are left out.
    A conversation becomes one text by the chat template of `tokenizer`: a field that holds a list of {role, content},
    or text_field "prompt,completion", two fields that hold texts (the user's, the assistant's) or such lists.
    ValueError for a missing source or field, a broken line (with its number), or text that is not UTF-8.
    """

    source: str
    subset: str | None = None
    split: str = "train"
    text_field: str = "text"
    max_texts: int | None = None
    tokenizer: Any = None

    def __post_init__(self) -> None:
        self._texts = self._bytes = self._all_bytes = 0  # that the latest reader has read, as they lie on disk

    @property
    def share(self) -> float | None:
        """What part of the source the latest reader has read, None where that is not known."""
        shares = [self._bytes / self._all_bytes] if self._all_bytes else []
        if self.max_texts:
            shares.append(self._texts / self.max_texts)
        return min(max(shares), 1.0) if shares else None

    def __iter__(self) -> Iterator[str]:
        self._texts = self._bytes = self._all_bytes = 0
        texts = (_text(self._rendered(value, where), where) for where, value in self._rows())
        for text in filter(str.strip, texts):
            self._texts += 1
            yield text
            if self._texts == self.max_texts:
                return
        if not self._texts:
            raise ValueError(f"data.source {self.source}: no text in it")

    def _rendered(self, value: Any, where: str) -> Any:
        """A conversation as text, without the tokens that pairs begin and end with anyway; other values as they are."""
        if not isinstance(value, list | tuple):
            return value
        messages = _messages(value, where)
        if not getattr(self.tokenizer, "chat_template", None):
            what = "no tokenizer is named" if self.tokenizer is None else "the tokenizer has no chat template"
            raise ValueError(f"data.source {where}: a conversation, but {what}; or write its text into one field")
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False) if messages else ""
        except Exception as error:  # a template raises what it likes
            raise ValueError(f"data.source {where}: the chat template refuses it ({_short(error)})") from None
        text = text.removeprefix(self.tokenizer.bos_token or "")
        return text.rstrip().removesuffix(self.tokenizer.eos_token or "")

    def labelled(self, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(text, label) of each text: the values that these fields of its row have, joined by +."""
        files = _files(self._path) if self._path is not None and not _is_saved(self._path) else []
        if any(_kind(file) == ".txt" for file in files):
            raise ValueError(f"data.source {self.source}: a .txt file has no fields but its text")
        columns = [replace(self, text_field=field)._rows() for field in fields]
        found = (
            (_text(self._rendered(value, where), where), "+".join(str(label) for _, label in labels))
            for (where, value), *labels in zip(self._rows(), *columns)
        )
        yield from islice(((text, label) for text, label in found if text.strip()), self.max_texts)

    @cached_property
    def _path(self) -> Path | None:
        path = Path(os.path.expanduser(self.source))
        local = path.exists() or self.source.startswith((".", "/", "~")) or _kind(path) in READERS
        return path if local else None

    def _rows(self) -> Rows:
        if self._path is None:
            yield from _hub(self.source, self.subset, self.split, self.text_field)
            return
        if _is_saved(self._path):
            yield from _saved(self._path, self.split, self.text_field)
            return
        files = _files(self._path)
        done, self._all_bytes = 0, sum(file.stat().st_size for file in files)
        for file in files:
            with file.open("rb") as raw:
                for row in _read(file, raw, self.text_field):
                    self._bytes = done + raw.tell()
                    yield row
            done += file.stat().st_size

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over what decides the texts: for local files their names, sizes and blocks of each, spread evenly.

        At most about 64 MB are read (two blocks of 64 kB of each file at the least), small corpora whole. A copy has
        the fingerprint of the original; a change that keeps the size is missed where it lies between the blocks.
        """
        facts: list[object] = [self.source, self.subset, self.split, self.text_field, self.max_texts]
        if self._path is not None:
            files = _files(self._path)
            num_blocks = max(2, _BLOCKS // len(files))
            names = [str(file.relative_to(self._path)) if file != self._path else file.name for file in files]
            sizes = [file.stat().st_size for file in files]
            facts = [self.text_field, self.max_texts, self.split if _is_saved(self._path) else ""]
            facts += [*zip(names, sizes, (_sampled(file, num_blocks) for file in files))]
        if template := getattr(self.tokenizer, "chat_template", None):
            facts.append(template)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_texts(source: str, **options: Any) -> Iterator[str]:
    """The texts of `Corpus(source, **options)`."""
    return iter(Corpus(source, **options))


def units(texts: Iterable[str], paragraphs: bool) -> Iterator[tuple[str, str]]:
    """(id, text) of each text: t7; or of each of its lines that is not blank: t7p3, text 7, line 3."""
    for number, text in enumerate(texts, 1):
        if not paragraphs:
            yield f"t{number}", text
            continue
        for line, paragraph in enumerate(text.split("\n"), 1):
            if paragraph.strip():
                yield f"t{number}p{line}", paragraph


def _text(value: Any, where: str) -> str:
    """null is an empty text; half a surrogate pair, which JSON may hold and no tokenizer takes, becomes U+FFFD."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = _decoded(value, where)
    if not isinstance(value, str):
        raise ValueError(f"data.source {where}: the field is no text, but {type(value).__name__}; see text_field")
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _messages(value: Any, where: str) -> list[dict[str, Any]]:
    """The messages of a list of them, or of (prompt, completion); none where a side is empty."""
    if isinstance(value, tuple):
        if not all(value):
            return []
        sides = [
            [{"role": role, "content": side}] if isinstance(side, str) else side for role, side in zip(ROLES, value)
        ]
        return [message for side in sides for message in _messages(side, where)]
    if not isinstance(value, list) or not all(
        isinstance(row, dict) and {"role", "content"} <= set(row) for row in value
    ):
        raise ValueError(
            f"data.source {where}: the field is no text, but {type(value).__name__}, and no list of messages "
            "({role, content} each); name another field with text_field"
        )
    return value


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"data.source {where}: not UTF-8; convert it, e.g. with iconv") from None


def _field(row: Any, text_field: str, where: str) -> tuple[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"data.source {where}: no object with a text field, but {type(row).__name__}")
    if text_field in row:
        return where, row[text_field]
    names = text_field.split(",")
    if len(names) != 2 or not set(names) <= set(row):
        raise ValueError(f"data.source {where}: {_no_field(text_field, row)}")
    return where, tuple(row[name] for name in names)


def _no_field(text_field: str, known: Iterable[str]) -> str:
    found = _short(", ".join(map(str, known))) or "nothing"
    return f"no text field {text_field!r}; found: {found}; name it with text_field"


def _short(words: object) -> str:
    """One line of at most 200 characters."""
    return textwrap.shorten(str(words), 200, placeholder=" …")


# ---------------------------------------------------------------- files


def _kind(file: Path) -> str:
    """What a file holds, by its name: ".jsonl" for "a.jsonl.gz"."""
    return Path(file.stem).suffix if file.suffix in PACKED else file.suffix


def _files(path: Path) -> list[Path]:
    known = ", ".join(READERS)
    if path.is_dir():
        saved = _is_saved(path)
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and (saved or _kind(file) in READERS)]
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not files:
            raise ValueError(f"data.source {path}: no {known} file in this folder")
        return files
    if not path.exists():
        raise ValueError(f"data.source {path}: no such file or folder")
    if _kind(path) not in READERS:
        raise ValueError(f"data.source {path}: cannot read this kind of file; known: {known}")
    return [path]


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


def _read(file: Path, raw: IO[bytes], text_field: str) -> Rows:
    unpack = PACKED.get(file.suffix)
    try:
        yield from READERS[_kind(file)](unpack(raw) if unpack else raw, str(file), text_field)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if not unpack:
            raise
        raise ValueError(f"data.source {file}: damaged {file.suffix[1:]} file ({_short(error)})") from None


def _lines(stream: IO[bytes], name: str) -> Rows:
    for number, line in enumerate(stream, 1):
        where = f"{name}, line {number}"
        yield where, _decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, where)


def _json_lines(stream: IO[bytes], name: str, text_field: str) -> Rows:
    for where, line in _lines(stream, name):
        if line.strip():
            yield _field(_parsed(line, where), text_field, where)


def _json(stream: IO[bytes], name: str, text_field: str) -> Rows:
    """One list of objects, or an object a line."""
    stream = io.BufferedReader(stream)  # type: ignore[type-var]
    if not stream.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _json_lines(stream, name, text_field)
        return
    rows = _parsed("".join(line for _, line in _lines(stream, name)), name)
    yield from (_field(row, text_field, f"{name}, row {number}") for number, row in enumerate(rows, 1))


def _parsed(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data.source {where}: not JSON ({_short(error)})") from None


def _csv(stream: IO[bytes], name: str, text_field: str, **style: Any) -> Rows:
    csv.field_size_limit(sys.maxsize)
    rows = csv.DictReader((line for _, line in _lines(stream, name)), **style)
    try:
        yield from (_field(row, text_field, f"{name}, line {rows.line_num}") for row in rows)
    except csv.Error as error:
        raise ValueError(f"data.source {name}, line {rows.line_num}: not CSV ({error})") from None


def _paragraphs(stream: IO[bytes], name: str, text_field: str) -> Rows:
    lines: list[str] = []
    for where, line in _lines(stream, name):
        if line.strip():
            lines.append(line.rstrip("\r\n"))
        elif lines:
            yield where, "\n".join(lines)
            lines = []
    yield name, "\n".join(lines)


def _parquet(stream: IO[bytes], name: str, text_field: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(stream)
        columns = [text_field] if text_field in table.schema_arrow.names else text_field.split(",")
        if not set(columns) <= set(table.schema_arrow.names):
            raise ValueError(f"data.source {name}: {_no_field(text_field, table.schema_arrow.names)}")
        for batch in table.iter_batches(columns=columns, batch_size=1000):
            if len(columns) > 1:
                yield from (_field(row, text_field, name) for row in batch.to_pylist())
                continue
            values = batch.column(0)
            if pyarrow.types.is_string(values.type):
                values = values.cast(pyarrow.binary())  # decoded one by one
            yield from ((name, value) for value in values.to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"data.source {name}: not a readable parquet file ({_short(error)})") from None


def _zstd(raw: IO[bytes]) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"))


PACKED: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}
READERS: dict[str, Callable[[Any, str, str], Rows]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    # as eval reads it: in a .tsv quotes mean nothing
    ".tsv": partial(_csv, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".txt": _paragraphs,
    ".parquet": _parquet,
}


# ---------------------------------------------------------------- what `datasets` reads


def _is_saved(path: Path) -> bool:
    """A folder that `datasets` saved (save_to_disk)."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _saved(folder: Path, split: str, text_field: str) -> Rows:
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
        rows = data[split] if isinstance(data, dict) else data
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"data.source {folder}: cannot be read ({_short(error)})") from None
    yield from (_field(row, text_field, f"{folder}, row {number}") for number, row in enumerate(rows, 1))


def _hub(source: str, subset: str | None, split: str, text_field: str) -> Rows:
    import datasets

    try:
        rows = datasets.load_dataset(source, subset, split=split, streaming=True)
        yield from (_field(row, text_field, f"{source}, row {number}") for number, row in enumerate(rows, 1))
    except (OSError, RuntimeError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"data.source {source}: no such file here, and not to be had from the Hub ({_short(error)}); "
            "name a local path, or check the network"
        ) from None
