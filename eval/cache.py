"""Scored rows, kept by model, task, version, options, data and seed, so that a killed evaluation can resume."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterfactuals.files import whole
from eval.task import Row


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hexadecimal SHA-256 over rows, each as a line of JSON with sorted keys."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def stamps(options: Mapping[str, Any]) -> list[list[Any]]:
    """[path, size, time of change] of each file that an option names (commas between), and of files in such a folder.

    A task's rows do not contain what is in such a file (word vectors, a lexicon), and it may be too big to hash.
    """
    values = [value for value in options.values() if isinstance(value, str)]
    parts = [part.strip() for value in values for part in dict.fromkeys([value, *value.split(",")])]
    named = [Path(part) for part in parts if part]
    files = [file for path in named for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in found]


class Cache:
    """A folder of scored rows, one file for each key: TASK-DIGEST.jsonl.gz, its first line the key itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: set[Path] = set()

    def _path(self, key: Mapping[str, Any]) -> Path:
        path = self.folder / f"{key['task']}-{digest([key])[:24]}.jsonl.gz".replace(":", "-")
        self._used.add(path)
        return path

    def read(self, key: Mapping[str, Any]) -> list[Row] | None:
        """The rows kept under this key; None if there are none or the file is damaged."""
        try:
            with gzip.open(self._path(key), "rt", encoding="utf-8") as file:
                first, *rows = map(json.loads, file)
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        return rows if first == json.loads(json.dumps(key)) else None

    def write(self, key: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
        """Keep the rows; returns them as `read` will."""
        with whole(self._path(key)) as path, gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
            for row in (key, *rows):  # one by one, since there may be half a million
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        kept = self.read(key)
        assert kept is not None
        return kept

    def prune(self) -> None:
        """Delete the files that this object neither read nor wrote."""
        for path in set(self.folder.glob("*.jsonl.gz")) - self._used:
            path.unlink(missing_ok=True)
