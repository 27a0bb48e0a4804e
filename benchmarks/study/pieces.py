"""A folder or file in pieces that a narrow channel carries, and whole again on the other side.

    python benchmarks/study/pieces.py split FOLDER PIECES [--megabytes 56]
    python benchmarks/study/pieces.py join PIECES/NAME.json TARGET

split writes PIECES/NAME.000, NAME.001 … and NAME.json, which has the SHA-256 of each; NAME is the folder's own. The
pieces may travel one by one and in any order. join puts TARGET/NAME there, complete or not at all: it refuses a piece
that is missing or not the one that was split.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

BLOCK = 1 << 20


class Pieces(io.RawIOBase):
    """A stream that is written into files of at most `size` bytes, PATH.000 and so on."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.sha256 = path, size, dict[str, str]()
        self._left, self._file, self._hash = 0, io.BytesIO(), hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        view = memoryview(data)
        while len(view):
            if not self._left:
                self.end()
                self._file = Path(f"{self.path}.{len(self.sha256):03d}").open("wb")  # noqa: SIM115 (closed by end)
                self._hash, self._left = hashlib.sha256(), self.size
            part, view = view[: self._left], view[self._left :]
            self._file.write(part)
            self._hash.update(part)
            self._left -= len(part)
        return len(data)

    def end(self) -> None:
        if isinstance(self._file, io.BufferedWriter) and not self._file.closed:
            self._file.close()
            self.sha256[Path(self._file.name).name] = self._hash.hexdigest()


def split(
    source: Path, out: Path, megabytes: float = 56, *, name: str = "", only: Iterable[Path] | None = None
) -> Path:
    """The list of the pieces of `source`. name: in place of its own; only: these of its files, not all."""
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder; nothing to split")
    name = name or source.name
    out.mkdir(parents=True, exist_ok=True)
    listed = out / f"{name}.json"
    for old in [listed, *out.glob(f"{name}.[0-9][0-9][0-9]")]:
        old.unlink(missing_ok=True)
    stream = Pieces(out / name, int(megabytes * 1e6))
    with tarfile.open(fileobj=stream, mode="w|", dereference=True) as tar:  # type: ignore[call-overload]
        for path in sorted([source] if only is None else only):
            tar.add(path, Path(name) / path.relative_to(source))
    stream.end()
    listed.write_text(json.dumps({"name": name, "sha256": stream.sha256}, indent=1) + "\n", encoding="utf-8")
    return listed


def wrong(listed: Path) -> list[str]:
    """What is wrong with the pieces beside a list, a line each."""
    found = []
    for piece, digest in json.loads(listed.read_text(encoding="utf-8"))["sha256"].items():
        path = listed.parent / piece
        if not path.is_file():
            found.append(f"{path}: is not here; carry it over")
        elif _sha256(path) != digest:
            found.append(f"{path}: is not the piece that was split; carry it over again, or split again")
    return found


def join(listed: Path, target: Path) -> Path:
    """TARGET/NAME from the pieces beside `listed`; nothing is done where it was made from the same pieces."""
    text = listed.read_text(encoding="utf-8")
    facts, stamp = json.loads(text), target / f".{listed.name}"
    whole = target / facts["name"]
    if whole.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return whole
    if problems := wrong(listed):
        raise ValueError("\n".join(problems))
    partial = target / f"{facts['name']}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(fileobj=_Chain(listed.parent / piece for piece in facts["sha256"]), mode="r|") as tar:  # type: ignore[call-overload]
        tar.extractall(partial, filter="data")
    shutil.rmtree(whole) if whole.is_dir() else whole.unlink(missing_ok=True)
    (partial / facts["name"]).rename(whole)
    partial.rmdir()
    stamp.write_text(text, encoding="utf-8")
    return whole


class _Chain(io.RawIOBase):
    """Files read one after the other."""

    def __init__(self, paths: Iterable[Path]):
        self._paths, self._file = iter(paths), io.BytesIO()

    def read(self, size: int = -1) -> bytes:
        found = b""
        while size > len(found):
            part = self._file.read(size - len(found))
            if not part and (path := next(self._paths, None)) is None:
                break
            if not part:
                self._file.close()
                self._file = path.open("rb")  # type: ignore[assignment, union-attr]
            found += part
        return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--megabytes", type=float, default=56, help="of a piece, at most (10^6 bytes)")
    arguments = parser.parse_args()
    try:
        if arguments.what == "split":
            listed = split(arguments.source, arguments.target, arguments.megabytes)
            print("\n".join(map(str, [listed, *sorted(listed.parent.glob(f"{listed.stem}.[0-9][0-9][0-9]"))])))
        else:
            print(join(arguments.source, arguments.target))
    except (ValueError, OSError) as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main()
