import bz2
import gzip
import json
import lzma
import os

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from counterfactuals.tokens.corpus import Corpus, read_texts
from eval.data import read_table


def write(path, rows):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


ROWS = [{"text": "one"}, {"text": "  "}, {"text": "two\nlines"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt.jsonl"])
def test_jsonl(name, tmp_path):
    assert list(read_texts(write(tmp_path / name, ROWS))) == ["one", "two\nlines"]


def test_txt_is_a_text_a_paragraph(tmp_path):
    (tmp_path / "a.txt").write_text("one\nmore\n\n\ntwo\n", encoding="utf-8")
    assert list(read_texts(str(tmp_path / "a.txt"))) == ["one\nmore", "two"]


def test_parquet_and_folders(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"body": ["p1", None, "p2"]}), tmp_path / "b.parquet")
    assert list(read_texts(str(tmp_path / "b.parquet"), text_field="body")) == ["p1", "p2"]
    write(tmp_path / "a.jsonl", [{"body": "j"}])
    assert list(read_texts(str(tmp_path), text_field="body")) == ["j", "p1", "p2"]
    with pytest.raises(ValueError, match="no text field 'text'; found: body; name it"):
        list(read_texts(str(tmp_path / "b.parquet")))


CONTENT = {
    ".json": json.dumps(ROWS),
    ".jsonl": "".join(json.dumps(row) + "\n" for row in [*ROWS, {"text": None}]),
    ".csv": 'n,text\n1,one\n2,"  "\n3,"two\nlines"\n',
    ".tsv": "text\tn\none\t1\n\t2\ntwo\t3\n",
    ".txt": "one\r\n\r\ntwo\r\nlines",
}
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: bytes(pyarrow.compress(content, "zstd")),
}


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("packing", PACK)
def test_every_kind_of_file_in_every_packing(tmp_path, kind, packing):
    (tmp_path / f"a{kind}{packing}").write_bytes(PACK[packing](b"\xef\xbb\xbf" + CONTENT[kind].encode()))
    second = "two" if kind == ".tsv" else "two\nlines"  # a .tsv cannot hold the end of a line
    assert list(read_texts(str(tmp_path / f"a{kind}{packing}"))) == ["one", second]


def test_quotes_mean_nothing_in_a_tsv(tmp_path):
    """As in eval.data.read_table."""
    (tmp_path / "a.tsv").write_text('text\tn\n"Who is she?\t1\nThe nurse.\t2\n')
    assert list(read_texts(str(tmp_path / "a.tsv"))) == ['"Who is she?', "The nurse."]
    assert [row["text"] for row in read_table(tmp_path / "a.tsv", ["text"])] == ['"Who is she?', "The nurse."]


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_packing_says_so(tmp_path, packing):
    whole = PACK[packing](os.urandom(100_000).hex().encode())
    (tmp_path / f"a.txt{packing}").write_bytes(whole[:-60_000] if packing != ".zst" else b"no" + whole)
    with pytest.raises(ValueError, match=f"damaged {packing[1:]} file"):
        list(read_texts(str(tmp_path / f"a.txt{packing}")))


def test_nested_folders_are_read_and_hidden_files_are_not(tmp_path):
    for name in ("b/c/x.txt", "a/y.txt", "z.txt", ".git/no.txt", "b/.no.txt", "b/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(read_texts(str(tmp_path))) == ["a/y.txt", "b/c/x.txt", "z.txt"]


def test_a_csv_file_with_a_broken_row_or_a_long_field(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,n\n" + "x" * 200_000 + ",1\n")
    assert list(read_texts(str(path))) == ["x" * 200_000]
    path.write_text("body\nx\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 2: no text field 'text'; found: body"):
        list(read_texts(str(path)))


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "dictionary"])
def test_parquet_columns_that_hold_text(tmp_path, kind):
    values = pyarrow.array(["p1", None, "é"])
    types = {"dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    values = values.cast(types.get(kind) or getattr(pyarrow, kind)())
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), tmp_path / "a.parquet")
    assert list(read_texts(str(tmp_path / "a.parquet"))) == ["p1", "é"]


def test_folders_that_datasets_saved(tmp_path):
    data = datasets.Dataset.from_dict({"body": ["one", None, "two"]})
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([2])}).save_to_disk(tmp_path / "two")
    assert list(read_texts(str(tmp_path / "one"), text_field="body")) == ["one", "two"]
    assert list(read_texts(str(tmp_path / "two"), text_field="body", split="test")) == ["two"]
    with pytest.raises(ValueError, match="no text field 'text'; found: body"):
        list(read_texts(str(tmp_path / "two")))
    with pytest.raises(ValueError, match=r"cannot be read .*'none'"):
        list(read_texts(str(tmp_path / "two"), split="none"))
    prints = [Corpus(str(tmp_path / "two"), text_field="body", split=split).fingerprint for split in ("train", "test")]
    assert prints[0] != prints[1]


def test_max_texts_counts_texts_that_are_given(tmp_path):
    assert list(read_texts(write(tmp_path / "a.jsonl", ROWS), max_texts=2)) == ["one", "two\nlines"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "a"}\n{"text"\n', "line 2: not JSON"),
        (b'{"body": "a"}\n', "line 1: no text field 'text'; found: body"),
        (b"[1]\n", "line 1: no object with a text field, but list"),
        (b'{"text": "a"}\n' * 999 + b'{"text": "\xff"}\n', "line 1000: not UTF-8"),
        (b"", "no text in it"),
    ],
)
def test_broken_files_say_where(content, says, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        list(read_texts(str(tmp_path / "a.jsonl")))
    assert "a.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_gzip_file_and_foreign_kinds(tmp_path):
    whole = gzip.compress(b'{"text": "a"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:40])
    with pytest.raises(ValueError, match="damaged gz file"):
        list(read_texts(str(tmp_path / "a.jsonl.gz")))
    (tmp_path / "a.doc").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot read this kind"):
        list(read_texts(str(tmp_path / "a.doc")))
    with pytest.raises(ValueError, match="no such file"):
        list(read_texts(str(tmp_path / "none.jsonl")))


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "She \\ud83d left."}\n', encoding="utf-8")
    assert list(read_texts(str(tmp_path / "a.jsonl"))) == ["She \ufffd left."]


def test_the_fingerprint_of_a_copy_is_that_of_the_original(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "x.jsonl", ROWS)
    write(tmp_path / "x.jsonl", ROWS)
    os.utime(tmp_path / "x.jsonl", (1, 1))
    assert Corpus(str(tmp_path / "a")).fingerprint == Corpus(str(tmp_path / "x.jsonl")).fingerprint


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 131_073, 500_000])
def test_the_fingerprint_sees_each_byte_of_a_small_corpus(tmp_path, size):
    path, content, seen = tmp_path / "a.txt", bytearray(size), set()
    places = {*range(0, size, max(size // 40, 1)), size - 1}
    for place in places:
        content[place] = 1
        path.write_bytes(content)
        seen.add(Corpus(str(path)).fingerprint)
    assert len(seen) == len(places)


def test_the_fingerprint_reads_the_ends_and_samples_of_a_large_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("counterfactuals.tokens.corpus._BLOCK", 10)
    monkeypatch.setattr("counterfactuals.tokens.corpus._BLOCKS", 4)
    path, found = tmp_path / "a.txt", []
    for place in (None, 0, 9, 20, 339, 340, 660, 990, 999):  # blocks begin at 0, 330, 660 and 990
        content = bytearray(1000)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        found.append(Corpus(str(path)).fingerprint)
    assert [print_ != found[0] for print_ in found] == [False, True, True, False, True, False, True, True, True]


def test_the_fingerprint_follows_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    before = Corpus(path).fingerprint
    assert Corpus(path).fingerprint == before != Corpus(path, max_texts=1).fingerprint
    write(tmp_path / "a.jsonl", ROWS[:1])
    assert Corpus(path).fingerprint != before


def test_a_hub_name_that_cannot_be_reached_says_so_in_one_line():
    with pytest.raises(ValueError, match="not to be had from the Hub") as caught:
        list(read_texts("nobody/no-such-set"))
    assert "\n" not in str(caught.value) and "name a local path" in str(caught.value)
