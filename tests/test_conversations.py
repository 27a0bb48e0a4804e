"""Messages, and prompts with completions, become texts by the chat template, and pairs of them."""

import copy
import json

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import train_distill
from configs import federation
from configs.load import load
from counterfactuals.__main__ import main
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser
from counterfactuals.tokens.batch import collate
from counterfactuals.tokens.chat import AssistantTokens
from counterfactuals.tokens.corpus import Corpus
from counterfactuals.tokens.pairs import PairSet, make_pairs
from federated.message import pack, unpack
from tests.conftest import make_tiny_gpt2
from tests.runs import fresh

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools\nhere') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED, SAID = "Who is she?", "She is his mother."
MESSAGES = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
TEXT = f"user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n{SAID}"  # between the tokens of beginning and end


@pytest.fixture(scope="module")
def chat(tiny_tokenizer):
    """A tokenizer like SmolLM2's, whose begin and end tokens are those of its chat format."""
    found = copy.deepcopy(tiny_tokenizer)
    found.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    found.chat_template = TEMPLATE
    return found


def source(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_messages_and_prompts_with_completions_are_the_same_text(tmp_path, chat):
    rows = [{"messages": MESSAGES}, {"messages": None}, {"messages": []}]
    found = Corpus(source(tmp_path / "a.jsonl", rows), text_field="messages", tokenizer=chat)
    assert list(found) == [TEXT]
    rows = [
        {"prompt": ASKED, "completion": SAID},
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
        {"prompt": MESSAGES[:1], "completion": SAID},
        {"prompt": ASKED, "completion": None},
        {"prompt": "", "completion": SAID},
    ]
    found = Corpus(source(tmp_path / "b.jsonl", rows), text_field="prompt,completion", tokenizer=chat)
    assert list(found) == [TEXT] * 3


def test_conversations_in_every_kind_of_file(tmp_path, chat):
    rows = {"messages": [MESSAGES, MESSAGES], "prompt": [ASKED, "x"], "completion": [SAID, None]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    (tmp_path / "a.json").write_text(json.dumps([{"messages": MESSAGES, "prompt": ASKED, "completion": SAID}] * 2))
    (tmp_path / "a.csv").write_text(f"prompt,completion\n{ASKED},{SAID}\nx,\n")
    for name in ("a.parquet", "saved", "a.json", "a.csv"):
        one = 2 if name == "a.json" else 1
        given = {"source": str(tmp_path / name), "tokenizer": chat}
        assert list(Corpus(**given, text_field="prompt,completion")) == [TEXT] * one, name
        if name != "a.csv":
            assert list(Corpus(**given, text_field="messages")) == [TEXT] * 2, name


def test_pairs_hold_the_tokens_of_the_template(tmp_path, chat, few_words):
    corpus = Corpus(source(tmp_path / "a.jsonl", [{"messages": MESSAGES}]), text_field="messages", tokenizer=chat)
    (pair,) = make_pairs(corpus, Reverser(load_lexicon(str(few_words)), policy="reverse"), chat, max_length=200)
    whole = chat.apply_chat_template(MESSAGES, tokenize=False).rstrip()
    assert pair.input_ids.tolist() == chat(whole, add_special_tokens=False).input_ids
    other = whole.replace("she?", "he?").replace("She is", "He is")
    assert chat.decode(pair.cf_input_ids) == other  # both sides of the conversation


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"messages": ["She"]}, "messages", "the field is no text, but list"),
        ({"messages": [{"role": "user"}]}, "messages", "the field is no text, but list"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages",
            r"the chat template refuses it \(no tools here\)",
        ),
        ({"prompt": 3, "completion": "x"}, "prompt,completion", "the field is no text, but int"),
        ({"prompt": "x"}, "prompt,completion", "no text field 'prompt,completion'; found: prompt"),
        ({"a": "x", "b": "x", "c": "x"}, "a,b,c", "no text field 'a,b,c'"),
    ],
)
def test_what_is_no_conversation_is_told_with_its_line(tmp_path, chat, row, field, message):
    with pytest.raises(ValueError, match=f"line 1: {message}"):
        list(Corpus(source(tmp_path / "a.jsonl", [row]), text_field=field, tokenizer=chat))


def test_a_conversation_needs_a_chat_template(tmp_path, tiny_tokenizer):
    path = source(tmp_path / "a.jsonl", [{"messages": MESSAGES}])
    for tokenizer, why in ((None, "no tokenizer is named"), (tiny_tokenizer, "has no chat template")):
        with pytest.raises(ValueError, match=f"line 1: a conversation, but .*{why}"):
            list(Corpus(path, text_field="messages", tokenizer=tokenizer))


def test_another_template_is_another_corpus(tmp_path, chat):
    path = source(tmp_path / "a.jsonl", [{"messages": MESSAGES}])
    other = copy.deepcopy(chat)
    other.chat_template = TEMPLATE.replace("<|im_start|>", "# ")
    found = [Corpus(path, text_field="messages", tokenizer=one).fingerprint for one in (chat, other, None)]
    assert len(set(found)) == 3


def test_build_takes_the_template_of_its_tokenizer(tmp_path, chat, few_words, capsys):
    chat.save_pretrained(tmp_path / "tokenizer")
    path = source(tmp_path / "a.jsonl", [{"prompt": ASKED, "completion": SAID}])
    given = [
        "build",
        "--source",
        path,
        "--tokenizer",
        str(tmp_path / "tokenizer"),
        "--output_dir",
        str(tmp_path / "pairs"),
    ]
    given += ["--text_field", "prompt,completion", "--lexicon", str(few_words), "--workers", "1"]
    assert main([*given, "--shard", "1/2"]) == 0
    assert "0 shards of part 1/2 are there" in capsys.readouterr().out
    assert main(given) == 0
    (folder,) = (tmp_path / "pairs").iterdir()
    assert chat.decode(PairSet(folder)[0].input_ids) == f"<|im_start|>{TEXT}<|im_end|>"
    for wrong in ("2/2", "1", "a/b", "1/2/3", "-1/2"):
        assert main([*given, f"--shard={wrong}"]) == 2
        assert f"--shard {wrong}: must be I/N" in capsys.readouterr().err


def test_what_the_assistant_says_is_told_from_the_tokens(chat):
    said = AssistantTokens(chat)
    messages = [*MESSAGES, {"role": "user", "content": "assistant?"}, {"role": "assistant", "content": "\nYes."}]
    ids = np.array(chat(chat.apply_chat_template(messages, tokenize=False), add_special_tokens=False).input_ids)
    runs = np.flatnonzero(np.diff(said(ids), prepend=False, append=False)).reshape(-1, 2)
    assert [chat.decode(ids[a:b]).strip() for a, b in runs] == [f"{SAID}<|im_end|>", "Yes.<|im_end|>"]
    cut = runs[0][0] + 2  # inside the first answer
    assert not said(ids[cut : runs[0][1]]).any()
    assert said(ids[cut:])[runs[1][0] - cut :].tolist() == said(ids)[runs[1][0] :].tolist()
    assert said(ids[: runs[0][0] + 3]).sum() == 3  # the answer goes on in the next piece
    assert not said(ids[:1]).any()


def test_a_template_without_headers_is_refused(chat, tiny_tokenizer):
    with pytest.raises(ValueError, match="has no chat template"):
        AssistantTokens(tiny_tokenizer)
    plain = copy.deepcopy(chat)
    plain.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(ValueError, match="does not mark where an answer begins"):
        AssistantTokens(plain)


def test_only_rows_that_predict_what_is_said_are_trained(tmp_path, chat, few_words):
    corpus = Corpus(source(tmp_path / "a.jsonl", [{"messages": MESSAGES}]), text_field="messages", tokenizer=chat)
    pairs = list(make_pairs(corpus, Reverser(load_lexicon(str(few_words)), policy="reverse"), chat, max_length=200))
    said = AssistantTokens(chat)
    for options in ({"op": "max"}, {"op": "max", "augment": True}, {}):
        every, some = collate(pairs, **options), collate(pairs, **options, said=said)
        assert every.row_R.tolist() == some.row_R.tolist()
        mask_NT = np.stack([said(ids) for ids in every.ids_NT.numpy()])
        expected = every.trained_R.numpy() & mask_NT.ravel()[every.row_R.numpy() + 1]
        assert some.trained_R.tolist() == expected.tolist()
        assert some.num_tokens == mask_NT[: some.num_trained, 1:].sum() > 5


def test_training_on_what_the_assistant_says(tmp_path, chat, few_words):
    """The number of trained tokens, and texts in which nobody answers change nothing."""
    rows = [{"messages": [{"role": "user", "content": f"{ASKED} {n}"}, *MESSAGES[1:] * (n % 2)]} for n in range(16)]
    teacher = make_tiny_gpt2(tmp_path / "teacher", chat)
    given = [f"data.source={source(tmp_path / 'a.jsonl', rows)}", f"counterfactual.lexicon={few_words}"]
    given += [f"teacher.model={teacher}", "data.text_field=messages", "data.loss_on=assistant", "data.max_length=96"]
    given += ["loss.op=max", "loss.vocabulary=reversed", "train.max_steps=2", "train.batch_size=16", "optim.lr=3e-3"]
    given += ["train.log_every=1", "train.precision=no", "train.cpu_threads=1", "train.micro_batch_size=4"]
    assert train_distill.main([*given, f"output_dir={tmp_path / 'run'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    answer = len(chat(f"{SAID}<|im_end|>", add_special_tokens=False).input_ids)
    assert [line["num_tokens"] for line in lines if "num_tokens" in line] == [8 * answer] * 2
    assert all(0 < line["loss"] < 20 for line in lines if "loss" in line)


def test_a_clients_weight_is_what_it_learns_from(tmp_path, chat, few_words):
    given = [f"data.source={source(tmp_path / 'a.jsonl', [{'text': TEXT}] * 4)}", f"counterfactual.lexicon={few_words}"]
    given += [f"teacher.model={make_tiny_gpt2(tmp_path / 'teacher', chat)}", f"output_dir={tmp_path / 'run'}"]
    given += ["data.loss_on=assistant", "train.cpu_threads=1", "data.max_length=96"]
    fresh()
    config = load(None, [*given, "federated={rounds: 1, clients: 1, per_round: 1, local_steps: 1}"])[1][""]
    client, _ = federation.client_of(config)
    student = client.accelerator.unwrap_model(client.task).student
    asked = pack({name: p.detach() for name, p in student.named_parameters()}, round=0, evaluate=False)
    _, facts = unpack(client.train(0, federation.clients_of(config) / "00000", asked))
    answer = len(chat(f"{SAID}<|im_end|>", add_special_tokens=False).input_ids)
    assert facts["held"] == facts["trained"] == 4 * answer
