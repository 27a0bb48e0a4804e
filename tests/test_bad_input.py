"""Every command on bad input: one line on stderr, exit code 2, nothing half-written. 10 MB lines take linear time."""

import errno
import functools
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from counterfactuals import sample
from counterfactuals.__main__ import main
from counterfactuals.audit import sample as audit
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.tokens import pairs
from tests.runs import forked

LOAD = functools.cache(load_lexicon)
TEXT = b"She gave him his book, and the actress saw her.\n"


class Run:
    """Runs a command in this process, in `folder`."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch

    def __call__(self, *arguments, stdin=b""):
        """Exit code, standard output, standard error."""
        out, error = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        with self.monkeypatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", error)
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as exit:
                code = exit.code
        out.flush()
        return code, out.buffer.getvalue(), error.getvalue()

    def refused(self, *arguments, stdin=b""):
        """The one line of an error; no file is left in `out`."""
        code, _, error = self(*arguments, stdin=stdin)
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1 and len(error) < 700, (code, error)
        assert not files(self.folder / "out")
        return error


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("counterfactuals.__main__.load_lexicon", LOAD)
    return Run(tmp_path, monkeypatch)


@pytest.fixture
def tokenizer(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "tok")


def command(name, source="a.txt"):
    given = {
        "build": ["--source", source, "--tokenizer", "tok", "--workers", "1", "--output_dir", "out"],
        "audit": ["--source", source, "--sample", "1", "--output_dir", "out"],
        "round_trip": ["--source", source],
        "learn_pronouns": ["--source", source, "--output", "out/pronouns.json"],
        "learn_names": ["--source", source, "--output", "out/capitals.json"],
        "learn_doubts": ["--output", "out/doubts.yaml"],
        "names": ["--census", source, "--output", "out/names.json"],
        "sample": ["--output_dir", "out"],
        "reverse": [],
    }
    return [name, *given[name]]


def parquet(values, kind=None):
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(values, kind)}), stream)
    return stream.getvalue()


def not_utf8_parquet():
    import pyarrow

    buffers = [None, pyarrow.py_buffer(b"\0\0\0\0\3\0\0\0"), pyarrow.py_buffer(b"S\xffe")]
    return parquet(pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers))


BAD_FILES = {
    "utf8.txt": (TEXT * 300 + b"\n\xff\n", "utf8.txt, line 302: not UTF-8"),
    "utf8.jsonl": (b'{"text": "She \xff"}\n', "utf8.jsonl, line 1: not UTF-8"),
    "utf8.txt.gz": (gzip.compress(TEXT + b"\xff"), "utf8.txt.gz, line 2: not UTF-8"),
    "utf16.txt": ("She".encode("utf-16"), "line 1: not UTF-8"),
    "empty.jsonl": (b"", "no text in it"),
    "empty.txt": (b"", "no text in it"),
    "empty.jsonl.gz": (b"", "no text in it"),
    "blank.txt": (b" \n\t\n\xc2\xa0\r\n\n", "no text in it"),
    "blank.jsonl": (b'{"text": "  "}\n\n', "no text in it"),
    "nul.jsonl": (b"\0\0\n", "nul.jsonl, line 1: not JSON"),
    "cut.jsonl": (b'{"text": "She"}\n{"text": "She', "cut.jsonl, line 2: not JSON"),
    "deep.jsonl": (b"[" * 100_000, "deep.jsonl, line 1: not JSON"),
    "digits.jsonl": (b'{"n": ' + b"9" * 5000 + b"}\n", "digits.jsonl, line 1: not JSON"),
    "field.jsonl": (b'{"body": "She"}\n', "field.jsonl, line 1: no text field 'text'; found: body"),
    "fields.jsonl": (json.dumps({f"k\n{n}": 1 for n in range(3000)}).encode(), "no text field 'text'; found: k 0, k 1"),
    "none.jsonl": (b"{}\n", "found: nothing"),
    "half.jsonl": (b'{"\\ud800": "She"}\n', "no text field 'text'"),
    "list.jsonl": (b'["She"]\n', "line 1: no object with a text field, but list"),
    "null.jsonl": (b'{"text": null}\n', "no text in it"),
    "number.jsonl": (b'{"text": 1}\n', "line 1: the field is no text, but int"),
    "one.json": (b'{"text": "She"\n}', "one.json, line 1: not JSON"),
    "cut.json": (b'[{"text": "She"}', "cut.json: not JSON"),
    "list.json": (b'[{"text": "She"}, 1]', "list.json, row 2: no object with a text field, but int"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "She"}\n' * 1000)[:40], "cut.jsonl.gz: damaged gz file"),
    "not.jsonl.gz": (b"hello\n", "not.jsonl.gz: damaged gz file"),
    "sum.txt.gz": (gzip.compress(TEXT)[:-8] + bytes(8), "sum.txt.gz: damaged gz file"),
    "empty.parquet": (b"", "not a readable parquet file"),
    "not.parquet": (b"PAR1xxxxPAR1", "not a readable parquet file"),
    "cut.parquet": (parquet(["She"] * 99)[:200], "not a readable parquet file"),
    "utf8.parquet": (not_utf8_parquet(), "utf8.parquet: not UTF-8"),
    "number.parquet": (parquet([1, 2]), "the field is no text, but int"),
    "list.parquet": (parquet([["She"]]), "the field is no text, but list"),
    "utf8.csv": (b"text\nShe\n\xff\n", "utf8.csv, line 3: not UTF-8"),
    "field.csv": (b"body\nShe\n", "field.csv, line 2: no text field 'text'; found: body"),
    "not.txt.zst": (b"hello", "not.txt.zst: damaged zst file"),
    "a.doc": (b"She\n", "cannot read this kind of file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(run, tokenizer, name):
    content, says = BAD_FILES[name]
    (run.folder / name).write_bytes(content)
    for what in ("build", "audit", "round_trip", "learn_pronouns", "learn_names"):
        assert says in run.refused(*command(what, name)), what


def test_bad_places(run):
    (run.folder / "empty").mkdir()
    (run.folder / "dir.jsonl/sub.txt").mkdir(parents=True)
    (run.folder / "dangling.txt").symlink_to("nowhere")
    (run.folder / "loop.txt").symlink_to("loop.txt")
    no_file, no_such = "file in this folder", "no such file or folder"
    for source, says in [
        *[("empty", no_file), ("dir.jsonl", no_file), ("dangling.txt", no_such), ("loop.txt", no_such)],
        *[
            ("none.txt", no_such),
            ("~nobody-here/a.txt", no_such),
            ("a\0b.txt", "a\0b.txt"),
            ("x" * 300 + ".txt", "long"),
        ],
        *[("", "--source: must not be empty"), ("no/set", "not to be had from the Hub"), ("/dev/null", "this kind")],
    ]:
        assert says in run.refused(*command("audit", source)), source
    if os.geteuid():  # root may read everything
        (run.folder / "closed.txt").write_bytes(TEXT)
        (run.folder / "closed.txt").chmod(0)
        assert "closed.txt: Permission denied" in run.refused(*command("audit", "closed.txt"))


def test_files_among_folders_and_odd_but_valid_text_are_read(run, tokenizer):
    (run.folder / "in/sub.txt").mkdir(parents=True)
    (run.folder / "in/nul.txt").write_bytes(b"She \0 left.\n\n\0\0\n")
    (run.folder / "in/mark.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "She left."}\n')
    (run.folder / "in/half.jsonl").write_bytes(b'{"text": "\\udc00 She \\ud800 left."}\n')
    (run.folder / "in/one.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfA"))
    for what in ("build", "audit", "round_trip"):
        code, _, error = run(*command(what, "in"))
        assert code == 0, error
    assert files(run.folder / "out") == ["00000.safetensors", "audit.csv", "audit.html", "meta.json"]


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        ("build", ["--workers", "0"], "--workers: must be at least 1, not 0"),
        ("build", ["--workers", "two"], "argument --workers: invalid int value: 'two'"),
        ("build", ["--max_length", "1"], "--max_length: must be at least 2, not 1"),
        ("build", ["--tokenizer", "none"], "tokenizer none: no tokenizer"),
        ("build", ["--tokenizer", "broken.json"], "tokenizer broken.json: no tokenizer"),
        ("build", ["--tokenizer", "folder"], "tokenizer folder: no tokenizer"),
        ("build", ["--tokenizer", "slow"], "alignment needs a fast tokenizer"),
        ("build", ["--output_dir", "a.txt"], "is not a folder that can be written into"),
        ("build", ["--output_dir", "a.txt/x"], "is not a folder that can be written into"),
        ("build", ["--output_dir", "/dev/full/x"], "is not a folder that can be written into"),
        ("build", ["--output_dir", ""], "--output_dir: must not be empty"),
        ("audit", ["--sample", "0"], "--sample: must be at least 1, not 0"),
        ("audit", ["--max_texts", "0"], "--max_texts: must be at least 1, not 0"),
        ("audit", ["--text_field", ""], "--text_field: must not be empty"),
        ("audit", ["--output_dir", "a.txt"], "is not a folder that can be written into"),
        ("audit", ["--score", "none.csv"], "none.csv: No such file or directory"),
        ("audit", ["--score", "folder"], "folder: Is a directory"),
        ("audit", ["--score", "broken.json"], "no column id, verdict, kind"),
        ("audit", ["--score", "latin.csv"], "latin.csv: not UTF-8"),
        ("audit", ["--strip", "none.csv", "--output", "out/x.csv"], "none.csv: No such file or directory"),
        ("audit", ["--strip", "latin.csv", "--output", "folder"], "--output folder: is a folder; name a file"),
        ("learn_pronouns", ["--output", "folder"], "--output folder: is a folder; name a file"),
        ("learn_pronouns", ["--output", "a.txt/x"], "is not a folder that can be written into"),
        ("learn_names", ["--output", "folder"], "--output folder: is a folder; name a file"),
        ("names", ["--census", "none.csv"], "none.csv: No such file or directory"),
        ("names", ["--census", "latin.csv"], "latin.csv: not UTF-8"),
        ("names", ["--census", "columns.csv"], "expected the columns name, male, female"),
        ("names", ["--census", "counts.csv"], "counts.csv, line 3: expected"),
        ("names", ["--census", "nameless.csv"], "nameless.csv, line 2: expected"),
        ("names", ["--census", "empty.csv"], "empty.csv: no name in it"),
        ("names", ["--output", "folder"], "--output folder: is a folder; name a file"),
        ("sample", ["--output_dir", "a.txt"], "is not a folder that can be written into"),
        ("sample", ["--seed", "-1"], "--seed: must be at least 0, not -1"),
        ("reverse", ["--lexicon", "none"], "no lexicon 'none'"),
        ("reverse", ["--lexicon", "none.yaml"], "none.yaml: no such file"),
        ("reverse", ["--lexicon", "broken.yaml"], "broken.yaml: not valid YAML"),
        ("reverse", ["--lexicon", "names.yaml"], "names.yaml: names: missing.json: no such file"),
        ("reverse", ["--direction", "girls"], "no group 'girls'; it has female, male"),
        ("reverse", ["--policy", "guess"], "policy: no 'guess'; there is reverse, skip, keep_names"),
        ("reverse", ["--policy", "1.5"], "policy: no '1.5'"),
        ("reverse", ["--fields", "a"], "stdin, line 1: not JSON"),
        ("learn_doubts", ["--marks", "none.csv"], "none.csv: No such file or directory"),
        ("learn_doubts", ["--marks", "columns.csv"], "no column reasons, verdict"),
        ("reverse", ["--protect", "table"], "protected: 'table' is nothing that lexicon gender replaces"),
        ("reverse", ["--protect", " "], "--protect: must not be empty"),
        ("reverse", ["--bogus"], "unrecognized arguments: --bogus"),
        ("round_trip", ["--lexicon", "race", "--direction", "female"], "lexicon race: no group 'female'"),
    ],
)
def test_bad_options(run, tokenizer, what, options, says):
    (run.folder / "folder").mkdir()
    names = "name: x\nversion: 1\nlicence: x\nsource: x\ngroups: [f, m]\npairs: {a: [she he]}\nnames: missing.json\n"
    for name, content in {
        "a.txt": TEXT,
        "broken.json": b"{",
        "latin.csv": b"id,verdict,kind\n\xff,ok,\n",
        "columns.csv": b"a,b\n1,2\n",
        "counts.csv": b"name,male,female\nAnn,0,9\nBob,x,0\n",
        "nameless.csv": b"name,male,female\n,0,9\n",
        "empty.csv": b"name,male,female\n",
        "broken.yaml": b"a: [",
        "names.yaml": names.encode(),
    }.items():
        (run.folder / name).write_bytes(content)
    if "slow" in options:
        from transformers import ByT5Tokenizer

        ByT5Tokenizer().save_pretrained(run.folder / "slow")
        (run.folder / "slow" / "vocab.txt").write_text("")  # it has no vocabulary, but a folder without one is refused
    assert says in run.refused(*command(what), *options, stdin=TEXT)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"pairs": [["Ann"]], "single": {"female": [], "male": []}, "either": []}',
        b'{"pairs": [[["Ann"], ["Bob"]]], "single": {"female": [], "male": []}, "either": []}',
    ],
)
def test_a_broken_table_of_names(run, content):
    lexicon = "name: x\nversion: 1\nlicence: x\nsource: x\ngroups: [f, m]\npairs: {a: [she he]}\nnames: names.json\n"
    (run.folder / "x.yaml").write_text(lexicon)
    (run.folder / "names.json").write_bytes(content)
    assert "x.yaml: " in run.refused("reverse", "--lexicon", "x.yaml", stdin=TEXT)


def test_a_late_mistake_leaves_whole_shards_only(run, tokenizer, monkeypatch):
    monkeypatch.setattr(pairs, "SHARD_CHARACTERS", 100)
    (run.folder / "a.jsonl").write_bytes(b'{"text": "She left him and his books."}\n' * 10 + b"{\n")
    code, _, error = run(*command("build", "a.jsonl"))
    assert code == 2 and error.splitlines()[-1].startswith("error: data.source a.jsonl, line 11: not JSON")
    assert files(run.folder / "out") == [f"{n:05d}.safetensors" for n in range(2)]


FIELDS = ["reverse", "--fields", "prompt,response"]


def test_fields_of_a_record_are_reversed_together_and_the_others_stay(run):
    rows = [
        {"n": 1, "prompt": "She asked.", "response": "He said \ud800 yes.", "other": "She"},
        {"prompt": "Nobody.", "response": ""},
    ]
    code, out, error = run(*FIELDS, stdin=b"\n".join(json.dumps(row).encode() for row in rows) + b"\n\n")
    found = [json.loads(line) for line in out.splitlines() if line]
    assert code == 0 and not error and out.endswith(b"\n\n")
    assert found == [
        {"n": 1, "prompt": "He asked.", "response": "She said ? yes.", "other": "She"},
        {"prompt": "Nobody.", "response": ""},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"prompt": "She"}', "line 2: no field 'response'; found: prompt"),
        (b'{"prompt": "She", "response": 1}', "line 2: field 'response' holds int, not text"),
        (b"[1]", "line 2: no object with fields, but list"),
        (b"{", "line 2: not JSON"),
        (b"[" * 100_000, "line 2: "),
    ],
)
def test_a_record_without_its_fields_is_one_line(run, line, says):
    good = b'{"prompt": "She", "response": "He"}\n'
    code, out, error = run(*FIELDS, stdin=good + line + b"\n")
    assert code == 2 and error.count("\n") == 1 and f"error: stdin, {says}" in error
    assert json.loads(out) == {"prompt": "He", "response": "She"}


def test_a_line_of_json_says_what_was_replaced_and_what_is_in_doubt(run):
    code, out, _ = run("reverse", "--json", "--policy", "1", stdin=b"The king was pregnant.\n")
    row = json.loads(out)
    assert code == 0 and row["reversed"] == "The queen was pregnant."
    assert {"text", "reversed", "spans", "flags", "cue", "turn", "passages"} <= set(row)
    assert [set(flag) >= {"start", "end", "kind", "doubt"} for flag in row["flags"]] == [True]
    (passage,) = row["passages"]
    assert (passage["start"], passage["end"], passage["reversed"]) == (0, 22, True) and 0 < passage["doubt"] <= 1
    assert row["cue"] == row["text"].index("pregnant") and row["turn"] == 0
    left = json.loads(run("reverse", "--json", "--policy", "0", stdin=b"The king was pregnant.\n")[1])
    assert left["reversed"] == left["text"] and left["cue"] == 4 and not left["passages"][0]["reversed"]


def test_doubts_are_fitted_from_marks(run):
    rows = [f"{n},{'wrong,x' if n % 4 == 0 else 'ok,'},base" for n in range(40)]
    (run.folder / "m.csv").write_text("\n".join(["id,verdict,kind,reasons", *rows]))
    code, out, error = run(*command("learn_doubts"), "--marks", "m.csv")
    assert code == 0, error
    assert "base: 0.25" in (run.folder / "out/doubts.yaml").read_text() and b"25.0% wrong" in out


def test_too_little_text_to_learn_from(run):
    (run.folder / "a.txt").write_bytes(TEXT)
    code, _, error = run(*command("learn_pronouns"))
    assert code == 2 and error.splitlines()[-1].startswith("error: learn_pronouns: no hers or mine")
    code, _, error = run(*command("learn_names"))
    assert code == 2 and error.splitlines()[-1].startswith("error: learn_names: ")
    assert not files(run.folder / "out")


# ---------------------------------------------------------------- disks, pipes, Ctrl-C


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def stops(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("what", ["build", "audit", "sample", "names", "learn_pronouns"])
@pytest.mark.parametrize("number", [0, 1])  # which file of a command does not fit
@pytest.mark.parametrize("failure", [full, stops])
def test_a_full_disk_or_ctrl_c_while_writing(run, tokenizer, monkeypatch, what, number, failure):
    words = ["she", "he", "his", "hers", "mine", "my", "him", "me", "us", "ours", "our", "them"]
    (run.folder / "a.txt").write_text("\n\n".join(f"I saw {word} and {word} too." for word in words * 30))
    (run.folder / "a.csv").write_text("name,male,female\nJohn,900,1\nMary,1,900\n")
    writes = Path.write_text, Path.write_bytes
    seen = []

    def write(path, content, **options):
        seen.append(path)
        text = isinstance(content, str)
        written = writes[not text](path, content[: len(content) // 2] if len(seen) > number else content, **options)
        return failure() if len(seen) > number else written

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr(Path, "write_bytes", write)
    rows = lambda number, _, stream="train": iter([{"text": f"{stream} {n}"} for n in range(number)])  # noqa: E731
    monkeypatch.setattr(sample, "generate", rows)
    monkeypatch.setattr(sample, "agreement_cases", lambda seed: [])
    code, _, error = run(*command(what, "a.csv" if what == "names" else "a.txt"))
    if number and what in ("names", "learn_pronouns"):
        assert code == 0 and len(seen) == 1
        return
    left = files(run.folder / "out")
    if failure is full:
        assert code == 2 and "No space left on device" in error.splitlines()[-1] and "; make room" in error
    else:
        assert code == 130 and error.splitlines()[-1] == "interrupted; run again to go on"
    assert "Traceback" not in error
    assert left == ({"build": ["00000.safetensors"], "sample": ["train.jsonl"]}.get(what, []) if number else [])


def test_what_a_killed_build_left_does_not_stay(run, tokenizer):
    (run.folder / "a.txt").write_bytes(TEXT)
    assert run(*command("build"))[0] == 0
    (folder,) = (run.folder / "out").iterdir()
    (folder / "meta.json").unlink()
    (folder / ".00000.safetensors.99").write_bytes(b"half")
    folder.rename(folder.with_name(folder.name + ".partial"))
    assert run(*command("build"))[0] == 0
    assert files(folder) == ["00000.safetensors", "meta.json"]


def process(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    call = [sys.executable, "-m", "counterfactuals", *map(str, arguments)]
    return subprocess.Popen(call, stderr=subprocess.PIPE, env=environment, **options)


def test_streams_that_end_early():
    reverse = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    closed = process("reverse", **reverse)
    closed.stdout.close()
    _, error = closed.communicate(TEXT * 10_000, timeout=60)
    assert closed.returncode == 0 and error == b""
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as nowhere:
            filled = process("reverse", stdin=subprocess.PIPE, stdout=nowhere)
            _, error = filled.communicate(TEXT, timeout=60)
        assert filled.returncode == 2
        assert error == b"error: standard output: No space left on device; make room and run again\n"


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_closed_streams(monkeypatch, capsys, closed):
    monkeypatch.setattr(sys, closed, None)
    assert main(["reverse"]) == 2
    assert "standard input or output is closed" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["build", "audit"])
def test_ctrl_c_is_one_line(tiny_tokenizer, tmp_path, what):
    """The source is a pipe that gives a text and then nothing."""
    os.mkfifo(tmp_path / "a.txt")
    tiny_tokenizer.save_pretrained(tmp_path / "tok")

    def work():
        os.setsid()
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return main(command(what))

    running = forked(work, tmp_path / "said")
    with open(tmp_path / "a.txt", "wb", buffering=0) as source:  # waits for the reader
        source.write(TEXT)
        time.sleep(0.2)
        os.killpg(running, signal.SIGINT)
        code = os.waitstatus_to_exitcode(os.waitpid(running, 0)[1])
    assert (code, (tmp_path / "said").read_text()) == (130, "interrupted; run again to go on\n")
    assert not files(tmp_path / "out")


# ---------------------------------------------------------------- any bytes at all


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"She \xed\xa0\x80 left")
@example(TEXT)
def test_any_bytes_are_reversed_or_refused(run, data):
    code, out, error = run("reverse", stdin=data)
    assert (code, error.count("\n")) in ((0, 0), (2, 1))
    if code == 0:
        assert out.count(b"\n") == data.count(b"\n")
        lines = run("reverse", "--json", stdin=data)[1].split(b"\n")
        texts = [json.loads(line)["reversed"] for line in lines if line]
        assert len(texts) == len(data.splitlines() if b"\r" not in data else lines[:-1])


ROWS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.just("text") | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
).map(lambda row: json.dumps(row).encode())
WORDS = st.lists(
    st.sampled_from(["She", "his", "HER", "Mr.", "Mary", "Ann", "King", "@", "\n", "\0", "’"]), max_size=12
)
TEXTS = WORDS.map(lambda words: json.dumps({"text": " ".join(words)}).encode())


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(ROWS | TEXTS | st.binary(max_size=40), max_size=5).map(b"\n".join),
    st.sampled_from(["a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.gz", "a.parquet"]),
    st.booleans(),
)
def test_any_file_is_read_or_refused(run, content, name, zipped):
    (run.folder / name).write_bytes(gzip.compress(content) if zipped and name.endswith(".gz") else content)
    assert_whole_or_refused(run, "audit", name)
    assert_whole_or_refused(run, "round_trip", name)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TEXTS | st.binary(max_size=20), min_size=1, max_size=3).map(b"\n".join), st.integers(2, 9))
def test_any_file_is_built_or_refused(run, tokenizer, content, max_length):
    (run.folder / "a.jsonl").write_bytes(content)
    assert_whole_or_refused(run, "build", "a.jsonl", "--max_length", max_length)


def assert_whole_or_refused(run, what, name, *options):
    code, _, error = run(*command(what, name), *options)
    assert code in (0, 2), error
    if code == 2:
        assert error.splitlines()[-1].startswith("error: ") and error.count("\n") <= 2  # a line of progress before
    assert not [file for file in files(run.folder / "out") if file.startswith(".")]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: b"id,verdict,kind\n" + text.encode("utf-8", "ignore"))
)
def test_any_table_is_read_or_refused(run, content):
    (run.folder / "a.csv").write_bytes(content)
    for arguments in (["audit", "--score", "a.csv"], ["names", "--census", "a.csv", "--output", "b.json"]):
        code, _, error = run(*arguments)
        assert (code, error.count("\n")) in ((0, 0), (2, 1)), error


# ---------------------------------------------------------------- one long line


UNITS = ["Aa ", "her ", "@", " ", '"', "a", "A", "he-", "Aa-", "A. ", "MARY SMITH, ", "GRACE SMITH, ", "Mr. ", "\xa0"]
UNITS += ["King of ", "an actress", "his\u0301", "he'", "http://a", "Mary (", "her *\n ", "ladies' "]


@pytest.mark.parametrize("unit", [*UNITS, pytest.param("a" + "_" * 70_000, id="underscores")])
def test_time_is_linear_in_the_length_of_a_line(run, unit):
    def seconds(size):
        line = ("she " + unit * (size // len(unit) + 1))[:size].encode()
        began = time.process_time()
        assert run("reverse", stdin=line)[0] == 0
        return time.process_time() - began

    seconds(1000)
    assert seconds(80_000) < 0.25 + 2 * 8 * seconds(10_000)


def test_a_long_line_is_cut_into_whole_pairs(run, tokenizer):
    (run.folder / "a.txt").write_text("She gave him his book. " * 10_000 + "x" * 100_000)
    for what in ("build", "audit"):
        code, _, error = run(*command(what), "--policy", "reverse")
        assert code == 0, error
    (made,) = (run.folder / "out").glob("pairs-*")
    stored = pairs.PairSet(made)
    assert stored.lengths.max() <= 1024 and stored.lengths.sum() == stored.meta["counts"]["tokens"] > 10**5
    assert len(audit._read(run.folder / "out/audit.csv")) == 1
