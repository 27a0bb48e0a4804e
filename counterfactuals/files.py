"""Files that are whole or not there; YAML in which nothing is read as something else; errors in one line."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is the old one or the new one, never a part; its folder is made if need be."""
    with whole(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The same for a file that is written piece by piece: another name, which becomes `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:  # a full disk, Ctrl-C
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


class StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys, and reads 010 as 8 and 1:30 as 90; here these are errors."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{where}: a list or mapping cannot be a key")
            if key.value in seen:
                raise ValueError(f"{where}: {key.value!r} stands twice")
            seen.add(key.value)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = int(super().construct_yaml_int(node))
        if str(number) != node.value.replace("_", "").removeprefix("+"):
            raise ValueError(f"{node.value} would be read as {number}; write numbers in decimal digits, text in quotes")
        return number


StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """The content of plain YAML. yaml.YAMLError; ValueError for what `StrictLoader` refuses."""
    return yaml.load(text, Loader=StrictLoader)  # nosec B506


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file; ValueError, one line, where it is not valid or `StrictLoader` refuses it."""
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"not valid YAML: {one_line(error)}") from None


def check_folder(folder: str | Path, name: str) -> None:
    """Refuse before the work what would fail after it: ValueError, one line, if nothing can be written there."""
    path = Path(folder).absolute()
    there = next(path for path in (path, *path.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{name} {folder}: {there} is not a folder that can be written into")


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def near(word: str, known: Iterable[Any]) -> str:
    """ "; did you mean …?", or "" where nothing known is like `word`."""
    match = difflib.get_close_matches(word, [str(item) for item in known], n=1)
    return f"; did you mean {match[0]}?" if match else ""


def one_line(error: Exception) -> str:
    """What an error says, in one line of at most 500 characters; its type where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:500]


def explain(error: OSError, where: str = "") -> str:
    """What, where and the way out, in one line; a write that finds the disk full does not say where."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    place = error.filename2 or error.filename or where
    said = f"{place}: {error.strerror or error}" if place else str(error.strerror or error)
    return said + ("; make room and run again" if full else "")
