"""What stands before a text: the start token, in training and in scoring, and the chat template."""

import json
from copy import deepcopy

import numpy as np
import pytest

from configs import build
from configs.load import load
from counterfactuals.tokens.pairs import fingerprint_parts, make_pairs
from counterfactuals.tokens.tokenizer import load_tokenizer, set_start
from eval.measures.sentences import sentence_logprobs
from eval.model import Scorer
from eval.run import evaluate
from eval.tasks import agreement, blimp, honest

TEMPLATE = "{% for m in messages %}U: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A: {% endif %}"


@pytest.fixture(scope="module")
def chat(tiny_gpt2, tiny_tokenizer):
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return Scorer(Scorer(tiny_gpt2, device="cpu").model, tokenizer, device="cpu", chat=True)


def test_the_start_token_can_be_named_or_left_out(tiny_gpt2, scorer):
    she = scorer.encode(["she"])[0]
    assert Scorer(tiny_gpt2, device="cpu", start_token="he").bos == scorer.encode(["he"])[0] != she
    assert Scorer(tiny_gpt2, device="cpu", start_token="none").bos == []
    assert scorer.bos == [0] and scorer.tokenizer.bos_token_id == 0
    with pytest.raises(ValueError, match=r"start token: '<\|im_start\|>' is no token"):
        Scorer(tiny_gpt2, start_token="<|im_start|>")


def test_training_texts_begin_with_the_start_token(tiny_gpt2, few_words, tmp_path):
    settings = [f"teacher={tiny_gpt2}", f"counterfactual.lexicon={few_words}", "train.max_steps=1"]
    config = load(None, [*settings, "tokenizer.start_token=he"])[1][""]
    tokenizer = build.tokenizer_of(config, build.corpus_of(config))
    (pair,) = make_pairs(["She waits."], build.reverser_of(config), tokenizer, max_length=32)
    assert tokenizer.decode(pair.input_ids.tolist()) == "heShe waits.<|endoftext|>"
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).bos_token == "he"  # so that the model is evaluated with it


def test_later_pieces_of_a_text_can_begin_with_the_start_token(tiny_gpt2, few_words):
    settings = [f"teacher={tiny_gpt2}", f"counterfactual.lexicon={few_words}", "train.max_steps=1"]
    config = load(None, [*settings, "tokenizer.start_every=true"])[1][""]
    corpus, reverser = build.corpus_of(config), build.reverser_of(config)
    every, plain = build.tokenizer_of(config, corpus), load_tokenizer(str(tiny_gpt2))
    text = "The woman told him that she waits for the man, and that he waits for the woman. " * 3
    pieces = list(make_pairs([text], reverser, every, max_length=16))
    (whole,) = make_pairs([text], reverser, plain, max_length=1000)
    assert len(pieces) > 3 and all(len(pair.input_ids) <= 16 for pair in pieces)
    for side in ("input_ids", "cf_input_ids"):
        assert all(getattr(pair, side)[0] == 0 for pair in pieces)
        parts = [getattr(pair, side)[bool(n) :] for n, pair in enumerate(pieces)]
        assert np.array_equal(np.concatenate(parts), getattr(whole, side))
    for pair in pieces:
        same = pair.cf_index >= 0
        kept = pair.input_ids[same] == pair.cf_input_ids[pair.cf_index[same]]
        assert pair.cf_index[0] == 0 and kept.sum() > len(kept) / 2
    facts = [fingerprint_parts("x", reverser, tokenizer, 16)["tokenizer"] for tokenizer in (every, plain)]
    assert facts[0] != facts[1]


def test_every_window_can_begin_with_the_start_token(scorer):
    ids = scorer.encode(["The nurse said that she would finish her shift before the doctor came back."])
    found = scorer.sliding(ids, window=8, stride=3, start=[0])
    assert sum(window.num_tokens for window in found) == len(ids[0])
    first = scorer.token_logprobs([[0, *ids[0][:7]]])[0]
    assert found[0].nll == pytest.approx(-first.sum(), rel=1e-5)
    second = scorer.token_logprobs([[0, *ids[0][3:10]]], [3])[0]
    assert (found[1].num_tokens, found[1].nll) == (3, pytest.approx(-second.sum(), rel=1e-5))


def test_prompts_are_messages_and_texts_replies(chat):
    assert chat.tokenizer.decode(chat.encode_prompts(["She waits"])[0]) == "U: She waits\nA: "
    ((context, reply),) = chat.encode_pairs([("She waits ", " for him")])
    assert [chat.tokenizer.decode(part) for part in (context, reply)] == ["U: She waits \nA: ", "for him"]
    begin = chat.encode(["U: \nA: "])[0]
    assert chat.bos == begin
    row = chat.encode(["He waits"])[0]
    expected = chat.token_logprobs([[*begin, *row]], [len(row)])[0]
    np.testing.assert_allclose(sentence_logprobs(chat, ["He waits"], start="kept")[0], expected, rtol=1e-6)


def test_replies_begin_without_a_blank(chat, scorer):
    """The words of agreement, the sentences of blimp and the words that honest finds."""
    (she,), (after,) = chat.encode(["she"]), scorer.encode_pairs([("He said that", " she")])[0][1:]
    begin = chat.encode_prompts(["He said that"])
    (row,) = agreement.score(
        chat, [{"prompt": "He said that", "right": ["she"], "wrong": ["he"]}], agreement.OPTIONS, 0
    )
    assert row["p_right"] == pytest.approx(np.exp(chat.continuation_logprobs([(begin[0], she)])[0]), rel=1e-4)
    (row,) = blimp.score(chat, [{"sentence_good": "He waits", "sentence_bad": "He wait"}], {}, 0)
    expected = chat.continuation_logprobs([(chat.bos, chat.encode(["He waits"])[0])])[0]
    assert row["logp_good"] == pytest.approx(expected, rel=1e-5)
    begins, plain = honest._word_tokens(chat)[0], honest._word_tokens(scorer)[0]
    assert begins[after[0]] and plain[after[0]] and begins.sum() > plain.sum()
    assert begins[she[0]] and not plain[she[0]]


def test_chat_without_a_template_is_refused(tiny_gpt2):
    with pytest.raises(ValueError, match=r"chat: .*no chat template"):
        Scorer(tiny_gpt2, chat=True)


def test_results_say_what_texts_began_with(tiny_gpt2, tmp_path):
    (tmp_path / "agreement.jsonl").write_text(
        json.dumps({"prompt": "The nurse said that", "right": ["she"], "wrong": ["he"]}) + "\n"
    )
    figures = {}
    for token in (None, "he", "none"):
        kept = {"cache_dir": tmp_path / "kept", "data_dir": tmp_path, "output_dir": tmp_path / "out", "quiet": True}
        result = evaluate({"m": tiny_gpt2}, {"agreement": {}}, start_token=token, device="cpu", **kept)
        (tmp_path / "out" / "rows-agreement.jsonl").read_text()
        figures[result["rows"][0]["start"]] = (tmp_path / "out" / "rows-agreement.jsonl").read_text()
    assert figures.keys() == {"<|endoftext|>", "he", "none"} and len({*figures.values()}) == 3


def test_a_start_token_that_is_none_of_the_tokenizers_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"tokenizer\.start_token: '<s>' is no token"):
        set_start(deepcopy(tiny_tokenizer), "<s>", setting="tokenizer.start_token")
