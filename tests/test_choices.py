"""hellaswag and blimp: rows by hand, the harness's own task files on the same rows, and the data as it is found."""

import bz2
import json
import shutil
from pathlib import Path

import pytest
import torch

from eval.model import Scorer
from eval.run import evaluate
from eval.task import MissingFile
from eval.tasks import TASKS, blimp, hellaswag

PEOPLE = [("The nurse", "she"), ("The engineer", "he"), ("A plumber", "he"), ("The king", "he"), ("The girl", "she")]
ACTS = ["repaired the old bridge", "gave her his book", "likes the kitchen"]
HELLASWAG = [
    {
        "activity_label": "Work",
        "ctx_a": f"{who} said that {one} {act}.",
        "ctx_b": "" if number % 2 else f"the {one} AND",
        "endings": [
            f"{other} has come back.",
            f"{one} [title] waited",
            f"  [step] the  {act} .",
            "by himself in the house",
        ],
        "label": str(number % 4),
    }
    for number, (who, one) in enumerate(PEOPLE)
    for act, other in zip(ACTS, ("the brother", "his wife", "she"))
]
BLIMP = [
    {
        "UID": uid,
        "linguistics_term": "anaphor_agreement" if "anaphor" in uid else "ellipsis",
        "sentence_good": f"{who} {act}, {one} said.",
        "sentence_bad": f"{who} {act}, {'he' if one == 'she' else 'she'} said.",
    }
    for uid in ("anaphor_gender_agreement", "anaphor_number_agreement", "ellipsis_n_bar_1")
    for who, one in PEOPLE
    for act in ACTS[: 2 + ("number" in uid)]
]


def options(task, **given):
    return {**TASKS[task].options, **given}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path):
    for name, rows in (("hellaswag", HELLASWAG), ("blimp", BLIMP)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{'val' if name == 'hellaswag' else 'all'}.jsonl").write_text(lines(rows))
    return tmp_path


@pytest.fixture(scope="module")
def sharp(tiny_gpt2, tiny_tokenizer, tmp_path_factory):
    """A folder with a model of unlike sentences: its random weights, larger."""
    from transformers import AutoModelForCausalLM

    path = tmp_path_factory.mktemp("sharp")
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def pack(data, lm_eval, monkeypatch):
    """The harness's own task files, their data set alone replaced by the files of `data`."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(data / "cache"))
    theirs, folder = Path(lm_eval.__file__).parent / "tasks", data / "pack"
    folder.mkdir()
    shutil.copy(theirs / "hellaswag" / "utils.py", folder)
    swag = (theirs / "hellaswag" / "hellaswag.yaml").read_text()
    pairs = (theirs / "blimp" / "_template_yaml").read_text() + "task: blimp_local\n"
    for name, text, split, file in (
        ("hellaswag_local", swag, "validation", data / "hellaswag" / "val.jsonl"),
        ("blimp_local", pairs, "train", data / "blimp" / "all.jsonl"),
    ):
        kept = [line for line in text.splitlines() if not line.startswith(("dataset_", "task:", "training_split"))]
        kept += [f"task: {name}", "dataset_path: json", f"dataset_kwargs: {{data_files: {{{split}: {file}}}}}"]
        (folder / f"{name}.yaml").write_text("\n".join(kept) + "\n")
    return str(folder)


def test_the_harness_agrees_with_hellaswag_and_blimp(sharp, data, pack):
    tasks = {
        "hellaswag": {},
        "lm_eval:hellaswag_local": {"include_path": pack},
        "blimp": {"file": "blimp/all.jsonl", "by": "UID"},
        "lm_eval:blimp_local": {"include_path": pack},
    }
    found = evaluate({"m": sharp}, tasks, data_dir=data, output_dir=data / "out", quiet=True)["rows"][0]["tasks"]
    rows = {label: (data / "out" / f"rows-{label.replace(':', '-')}.jsonl").open() for label in tasks}
    rows = {label: [json.loads(line) for line in file] for label, file in rows.items()}
    for ours, names in (("hellaswag", {"acc": "acc", "acc_norm": "acc_norm"}), ("blimp", {"accuracy": "acc"})):
        theirs = f"lm_eval:{ours}_local"
        by_document = [row for row in rows[theirs] if "doc" in row]
        assert len(by_document) == len(rows[ours]) > 10
        for own, other in names.items():
            assert found[ours][own]["value"] == found[theirs][other]["value"]
            field = "right" if ours == "blimp" else own
            assert [row[field] for row in rows[ours]] == [bool(row[other]) for row in by_document]
            assert 0 < found[ours][own]["value"] < 1
    acc, norm = ([row[name] for row in rows["hellaswag"]] for name in ("acc", "acc_norm"))
    assert acc != norm


def test_figures_of_rows_by_hand():
    rows = [{"acc": True, "acc_norm": False}, {"acc": True, "acc_norm": True}, {"acc": False, "acc_norm": False}]
    found = hellaswag.aggregate(rows, options("hellaswag"), 0)
    assert [found[name]["value"] for name in ("acc", "acc_norm")] == pytest.approx([2 / 3, 1 / 3])
    rows = [{"UID": "anaphor_gender_agreement", "linguistics_term": "anaphor_agreement", "right": True}] * 3
    rows += [{"UID": "anaphor_number_agreement", "linguistics_term": "anaphor_agreement", "right": False}]
    rows += [{"UID": "ellipsis_n_bar_1", "linguistics_term": "ellipsis", "right": False}] * 2
    found = blimp.aggregate(rows, options("blimp"), 0)
    expected = {"accuracy": 0.5, "anaphor_gender_agreement": 1}
    expected |= {"accuracy/anaphor_agreement": 0.75, "accuracy/ellipsis": 0}
    assert {name: entry["value"] for name, entry in found.items()} == expected
    assert "accuracy/ellipsis_n_bar_1" in blimp.aggregate(rows, options("blimp", by="UID"), 0)
    assert "anaphor_gender_agreement" not in blimp.aggregate(rows[3:], options("blimp"), 0)


def test_acc_norm_is_by_character(scorer):
    rows = [{"context": "Work: The nurse said", "endings": ["she", "that she would finish", "he", ""], "label": 1}]
    (found,) = hellaswag.score(scorer, rows, options("hellaswag"), 0)
    assert not found["acc"] and found["acc_norm"]  # 21 characters
    context = scorer.encode([rows[0]["context"]])[0]
    ids = scorer.encode([" " + ending for ending in rows[0]["endings"]])
    expected = scorer.continuation_logprobs([(context, row) for row in ids])
    assert found["logp"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_hellaswag_reads_text_of_six_lines(tmp_path):
    (tmp_path / "hellaswag").mkdir()
    text = "Ropes: A man is on a roof. He waits (a bit.) the OLD man\n3\na\nb\nc\nd [x]\n"
    text += "Health: Sleep well. Rest.\n0\ne\nf\ng\nh\n"
    (tmp_path / "hellaswag" / "val.txt.bz2").write_bytes(bz2.compress(text.encode()))
    rows = hellaswag.load(tmp_path, options("hellaswag"), None, 0)
    assert rows == [
        {"context": "Ropes: A man is on a roof. He waits (a bit.) The old man", "endings": [*"abc", "d "], "label": 3},
        {"context": "Health: Sleep well. Rest.", "endings": ["e", "f", "g", "h"], "label": 0},
    ]  # fmt: skip
    (tmp_path / "hellaswag" / "val.txt.bz2").write_bytes(bz2.compress(text.encode())[:-9])
    with pytest.raises(ValueError, match=r"not a complete \.bz2 file"):
        hellaswag.load(tmp_path, options("hellaswag"), None, 0)


def test_rows_that_cannot_be_right_are_refused(data):
    path = data / "hellaswag" / "val.jsonl"
    for change in ({"label": 4}, {"label": ""}, {"endings": "he"}):
        path.write_text(lines([HELLASWAG[0], {**HELLASWAG[1], **change}]))
        with pytest.raises(ValueError, match=r"val\.jsonl row 2: needs a list of endings"):
            hellaswag.load(data, options("hellaswag"), None, 0)
    (data / "five.txt").write_text("a: b\n0\nc\nd\ne\n")
    with pytest.raises(ValueError, match=r"five\.txt: 5 lines"):
        hellaswag.load(data, options("hellaswag", file="five.txt"), None, 0)
    with pytest.raises(ValueError, match=r"hellaswag\.bos 'maybe': must be auto, true or false"):
        hellaswag.load(data, options("hellaswag", bos="maybe"), None, 0)
    with pytest.raises(MissingFile, match="BLiMP's pairs"):
        blimp.load(data, options("blimp"), None, 0)


def test_blimp_reads_the_authors_folder(data):
    whole = blimp.load(data, options("blimp", file="blimp/all.jsonl"), None, 0)
    for uid in {row["UID"] for row in BLIMP}:
        (data / "pairs").mkdir(exist_ok=True)
        (data / "pairs" / f"{uid}.jsonl").write_text(lines(row for row in BLIMP if row["UID"] == uid))
    assert blimp.load(data, options("blimp", file="pairs"), None, 0) == whole


def test_begin_of_text_stands_where_the_tokenizer_puts_it(tiny_gpt2):
    from tokenizers.processors import TemplateProcessing

    scorer = Scorer(tiny_gpt2, device="cpu")
    texts = [("The nurse said", " she")]
    plain, after = (hellaswag.after_context(scorer, texts, bos) for bos in ("false", "true"))
    assert after == [(scorer.bos + plain[0][0], plain[0][1])]
    assert hellaswag.after_context(scorer, texts, "auto") == plain
    bos = scorer.tokenizer.bos_token
    scorer.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, scorer.bos[0])]
    )
    assert hellaswag.after_context(scorer, texts, "auto") == after


def test_every_passage_of_lambada_has_a_last_word(shared_data):
    rows = TASKS["last_word"].rows(shared_data, options("last_word"), None, 0)
    assert len(rows) == 5153 and rows[0]["word"] == "signs"


def test_the_real_data_is_read_whole(shared_data):
    rows = hellaswag.load(shared_data, options("hellaswag"), None, 0)
    assert len(rows) == 10042 and {len(row["endings"]) for row in rows} == {4}
    assert rows[0]["context"] == "Roof shingle removal: A man is sitting on a roof. He"
    assert sum(not row["context"].rstrip("\"')").endswith((".", "!", "?")) for row in rows) == 3243
    rows = blimp.load(shared_data, options("blimp"), None, 0)
    assert len(rows) == 67000 and sum(row["UID"] == blimp.OWN for row in rows) == 1000
