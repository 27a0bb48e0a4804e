import gzip
import json
import os

import pytest

from counterfactuals.tokens.corpus import fingerprint, read_texts


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
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"body": ["p1", None, "p2"]}), tmp_path / "b.parquet")
    assert list(read_texts(str(tmp_path / "b.parquet"), text_field="body")) == ["p1", "p2"]
    write(tmp_path / "a.jsonl", [{"body": "j"}])
    assert list(read_texts(str(tmp_path), text_field="body")) == ["j", "p1", "p2"]
    with pytest.raises(ValueError, match="no text field 'text'; found: body; name it"):
        list(read_texts(str(tmp_path / "b.parquet")))


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
    with pytest.raises(ValueError, match="damaged gzip"):
        list(read_texts(str(tmp_path / "a.jsonl.gz")))
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot read this kind"):
        list(read_texts(str(tmp_path / "a.csv")))
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
    assert fingerprint(str(tmp_path / "a")) == fingerprint(str(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 131_073, 500_000])
def test_the_fingerprint_sees_each_byte_of_a_small_corpus(tmp_path, size):
    path, content, seen = tmp_path / "a.txt", bytearray(size), set()
    places = {*range(0, size, max(size // 40, 1)), size - 1}
    for place in places:
        content[place] = 1
        path.write_bytes(content)
        seen.add(fingerprint(str(path)))
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
        found.append(fingerprint(str(path)))
    assert [print_ != found[0] for print_ in found] == [False, True, True, False, True, False, True, True, True]


def test_the_fingerprint_follows_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    before = fingerprint(path)
    assert fingerprint(path) == before != fingerprint(path, max_texts=1)
    write(tmp_path / "a.jsonl", ROWS[:1])
    assert fingerprint(path) != before


def test_a_hub_name_that_cannot_be_reached_says_so_in_one_line():
    with pytest.raises(ValueError, match="not to be had from the Hub") as caught:
        list(read_texts("nobody/no-such-set"))
    assert "\n" not in str(caught.value) and "name a local path" in str(caught.value)
