"""eval.model against slow, plain computations on a tiny random GPT-2."""

import math
import random

import numpy as np
import pytest
import torch
from tokenizers import decoders
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from counterfactuals.tokens.tokenizer import encode_after
from eval.model import Scorer, windows
from eval.sampling import decode_steps, in_nucleus, sample_top_p
from eval.tasks import honest
from tests.test_align import llama_2, metaspace


@pytest.fixture(scope="module")
def sequences(scorer):
    generator = random.Random(0)
    return [[generator.randrange(1, scorer.vocab_size) for _ in range(generator.randint(2, 60))] for _ in range(40)]


def sharp(model):
    """The same random model with far from uniform predictions, so that a wrong context shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def sharp_scorer(tiny_gpt2, tiny_tokenizer):
    return Scorer(sharp(AutoModelForCausalLM.from_pretrained(tiny_gpt2)), tiny_tokenizer, device="cpu")


def plain_logprobs(model, ids):
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def test_token_logprobs_equal_one_by_one(sharp_scorer, sequences):
    for found, ids in zip(sharp_scorer.token_logprobs(sequences), sequences):
        plain = plain_logprobs(sharp_scorer.model, ids)
        expected = [plain[t - 1, ids[t]].item() for t in range(1, len(ids))]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert found.dtype == np.float32


def test_only_the_last_tokens_on_request(sharp_scorer, sequences):
    last = [len(ids) * i // len(sequences) for i, ids in enumerate(sequences)]
    for all_of, some, n in zip(
        sharp_scorer.token_logprobs(sequences), sharp_scorer.token_logprobs(sequences, last), last, strict=True
    ):
        np.testing.assert_allclose(some, all_of[len(all_of) - n :], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batch_size_does_not_matter(sharp_scorer, tiny_tokenizer, sequences, family):
    """Batches of 2 and of 12 equal single rows to 1e-5; rows have unequal lengths, so that most are padded."""
    sequences = sequences[:18]
    model = sharp_scorer.model if family == "gpt2" else llama(tiny_tokenizer).model
    one, *others = (Scorer(model, tiny_tokenizer, device="cpu", batch_size=size) for size in (1, 2, 12))
    last = [len(ids) * i // len(sequences) for i, ids in enumerate(sequences)]
    pairs = [(ids[:1], ids[1:]) for ids in sequences]
    long = [sequences[0] * 3, *sequences]
    asked = {
        "token_logprobs": lambda scorer: scorer.token_logprobs(sequences),
        "the last only": lambda scorer: scorer.token_logprobs(sequences, last),
        "next_logprobs": lambda scorer: list(scorer.next_logprobs(sequences)),
        "continuation_logprobs": lambda scorer: scorer.continuation_logprobs(pairs),
        "greedy_continuations": lambda scorer: scorer.greedy_continuations(pairs)[1],
        "sliding": lambda scorer: [
            [w.num_tokens, w.nll / w.num_tokens] for w in scorer.sliding(long, window=40, stride=19)
        ],
        "hidden_states": lambda scorer: scorer.hidden_states(sequences),
        "states of a layer": lambda scorer: scorer.hidden_states(sequences, [[-1, 0]] * len(sequences), layer=1),
    }
    for name, ask in asked.items():
        expected = list(ask(one))
        for many in others:
            for a, b in zip(expected, ask(many), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5, err_msg=name)
    greedy = [one.sample_ids(sequences, top_p=1e-9, max_new_tokens=6, batch_size=size) for size in (1, 2, 12)]
    assert greedy[0] == greedy[1] == greedy[2]


def test_a_window_that_holds_the_text_is_no_window(sharp_scorer, sequences):
    """Whatever the stride; and a token has at least window − stride tokens before it where the text has them."""
    whole = [float(-logps.sum(dtype=np.float64)) for logps in sharp_scorer.token_logprobs(sequences)]
    for stride in (1, 7, 64):
        found = sharp_scorer.sliding(sequences, window=64, stride=stride)
        assert [w.text for w in found] == list(range(len(sequences)))
        np.testing.assert_allclose([w.nll for w in found], whole, rtol=1e-5)
    for window, stride in ((32, 16), (40, 9)):
        for begin, _, first in windows(301, window, stride)[1:]:
            assert first - begin == window - stride


def test_next_logprobs(sharp_scorer, sequences):
    found = sharp_scorer.next_logprobs(sequences)
    for row, ids in zip(found, sequences):
        np.testing.assert_allclose(row, plain_logprobs(sharp_scorer.model, ids)[-1], atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(sharp_scorer.next_logprobs(sequences, [5, 3]), found[:, [5, 3]])


def test_a_single_token_has_nothing_to_score(scorer):
    assert [len(found) for found in scorer.token_logprobs([[6], [6, 7]])] == [0, 1]
    assert scorer.token_logprobs([]) == []


def test_continuations_sum_their_tokens(sharp_scorer):
    plain = plain_logprobs(sharp_scorer.model, [4, 5, 6, 7])
    found = sharp_scorer.continuation_logprobs([([4, 5], [6, 7]), ([4, 5, 6], [7])])
    np.testing.assert_allclose(found, [(plain[1, 6] + plain[2, 7]).item(), plain[2, 7].item()], atol=1e-4)
    with pytest.raises(ValueError, match="empty prompt"):
        sharp_scorer.continuation_logprobs([([], [6])])


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(100, 32, 16), (32, 32, 16), (33, 32, 1), (7, 32, 16), (50, 10, 10)]
)
def test_windows_score_each_token_once(length, window, stride):
    targets = [t for _, end, first in windows(length, window, stride) for t in range(first, end)]
    skipped = set(range(0, length, stride)) if stride == window else {0}
    assert sorted(targets) == sorted(set(range(length)) - skipped)
    assert all(end - begin <= window for begin, end, _ in windows(length, window, stride))


def test_sliding_equals_the_plain_recipe(sharp_scorer):
    """Hugging Face's recipe, as a loop over windows and a loop over their tokens."""
    ids = [random.Random(1).randrange(1, sharp_scorer.vocab_size) for _ in range(301)]
    window, stride = 64, 24
    total, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        plain = plain_logprobs(sharp_scorer.model, ids[begin:end])
        for t in range(max(previous_end, 1), end):
            total -= plain[t - begin - 1, ids[t]].item()
            count += 1
        previous_end = end
        if end == len(ids):
            break
    found = sharp_scorer.sliding([ids], window=window, stride=stride)
    assert sum(w.num_tokens for w in found) == count == len(ids) - 1
    assert sum(w.nll for w in found) == pytest.approx(total, rel=1e-5)


def test_sliding_keeps_to_the_models_length_and_to_each_text(scorer):
    texts = [[3] * 300, [4, 5], [6]]
    found = scorer.sliding(texts, window=1024, stride=512)  # the model has 128 positions: 128 by 64
    assert [w.text for w in found] == [0, 0, 0, 0, 1]
    assert [w.num_tokens for w in found] == [127, 64, 64, 44, 1]
    with pytest.raises(ValueError, match="needs window"):
        scorer.sliding(texts, window=16, stride=17)


def reference_nucleus(probs, top_p):
    """The smallest set of most probable tokens that reaches top_p, by sorting."""
    order = sorted(range(len(probs)), key=lambda i: -probs[i])
    kept, mass = set(), 0.0
    for i in order:
        kept.add(i)
        mass += probs[i]
        if mass >= top_p:
            break
    return kept


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_nucleus_equals_the_sorted_reference(top_p):
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * 3
    probs = torch.softmax(logits.double(), -1)
    for row in probs:
        found = {i for i in range(50) if in_nucleus(row[None], torch.tensor([i]), top_p)[0]}
        assert found == reference_nucleus(row.tolist(), top_p)


def test_nucleus_takes_equal_tokens_together():
    probs = torch.tensor([[0.4, 0.2, 0.2, 0.2]])
    assert [bool(in_nucleus(probs, torch.tensor([i]), 0.5)[0]) for i in range(4)] == [True] * 4
    assert [bool(in_nucleus(probs, torch.tensor([i]), 0.4)[0]) for i in range(4)] == [True, False, False, False]


@pytest.mark.parametrize(("top_p", "temperature"), [(0.8, 1.0), (1.0, 1.0), (0.6, 0.7), (1e-6, 1.0)])
def test_samples_have_the_nucleus_frequencies(top_p, temperature):
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -1.0, -2.0])
    probs = torch.softmax(logits / temperature, -1)
    kept = reference_nucleus(probs.tolist(), top_p)
    expected = np.array([p if i in kept else 0 for i, p in enumerate(probs.tolist())])
    expected /= expected.sum()
    drawn = sample_top_p(
        logits.expand(40_000, -1), top_p=top_p, temperature=temperature, generator=torch.Generator().manual_seed(0)
    )
    frequencies = np.bincount(drawn.numpy(), minlength=7) / 40_000
    assert (frequencies[expected == 0] == 0).all()
    np.testing.assert_allclose(frequencies, expected, atol=0.01)


def llama(tiny_tokenizer):
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    return Scorer(sharp(LlamaForCausalLM(config)), tiny_tokenizer, device="cpu")


@pytest.mark.parametrize(("family", "num_rows"), [("gpt2", 6), ("gpt2", 20), ("llama", 6)])
def test_cached_steps_equal_uncached_for_any_padding(sharp_scorer, tiny_tokenizer, sequences, family, num_rows):
    """Unequal and equal prompts, rows that end early: each step's distribution is that of the text so far, alone."""
    scorer = sharp_scorer if family == "gpt2" else llama(tiny_tokenizer)
    eos, prompts = tiny_tokenizer.eos_token_id, sequences[:num_rows]
    prompts[1] = prompts[3]
    limit = num_rows
    texts = [list(prompt) for prompt in prompts]
    ended, sizes = set(), []

    def choose(logits, rows):
        sizes.append(len(rows))
        tokens = []
        for i, row in enumerate(rows):
            token = eos if len(sizes) == row + 2 else 1 + (7 * row + len(sizes)) % (scorer.vocab_size - 1)
            tokens.append(token)
            if row not in ended:
                plain = plain_logprobs(scorer.model, texts[row])[-1]
                torch.testing.assert_close(torch.log_softmax(logits[i].double(), -1), plain, atol=1e-4, rtol=0)
                texts[row].append(token)
                if token == eos:
                    ended.add(row)
        return torch.tensor(tokens)

    with torch.inference_mode():
        out = decode_steps(scorer, prompts, choose, limit)
    assert [len(new) for new in out] == [*range(1, limit), limit]  # row r ends at step r + 2; the last at the limit
    assert sizes[0] == num_rows > sizes[-1]  # ended rows leave in the end …
    assert (sizes[2] == num_rows) == (num_rows == 20)  # … but not one by one
    for new, text, prompt in zip(out, texts, prompts):
        assert new == [token for token in text[len(prompt) :] if token != eos]


def test_a_text_ends_with_each_token_that_the_model_ends_with(tiny_gpt2, tiny_tokenizer):
    """Chat models name their end of turn in generation_config only."""
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    for told, ends in ((5, {0, 5}), ([5, 0], {0, 5}), (None, {0})):
        model.generation_config.eos_token_id = told
        scorer = Scorer(model, tiny_tokenizer, device="cpu")
        assert scorer.ends == ends
        for scorer.keeps_state in (True, False):
            drawn = iter([7, 5, 9])
            new = decode_steps(scorer, [[1, 2]], lambda *_, drawn=drawn: torch.tensor([next(drawn)]), 3)
            assert new == [[7] if 5 in ends else [7, 5, 9]]


def test_sampling_is_reproducible_and_seeded(sharp_scorer, sequences):
    first = sharp_scorer.sample_ids(sequences, max_new_tokens=8, seed=1)
    assert first == sharp_scorer.sample_ids(sequences, max_new_tokens=8, seed=1)
    assert first != sharp_scorer.sample_ids(sequences, max_new_tokens=8, seed=2)
    assert all(len(row) <= 8 and sharp_scorer.tokenizer.eos_token_id not in row for row in first)


def test_a_tiny_nucleus_is_greedy_whatever_the_batch(sharp_scorer, sequences):
    greedy = []
    for ids in sequences[:8]:
        text = list(ids)
        for _ in range(5):
            text.append(int(plain_logprobs(sharp_scorer.model, text)[-1].argmax()))
            if text[-1] == sharp_scorer.tokenizer.eos_token_id:
                text.pop()
                break
        greedy.append(text[len(ids) :])
    for size in (1, 3, 8):
        found = sharp_scorer.sample_ids(sequences[:8], top_p=1e-9, max_new_tokens=5, batch_size=size)
        assert found == greedy


def test_sampled_frequencies_follow_the_model(scorer):
    prompt = [5, 6, 7]
    new = scorer.sample_ids([prompt, [9] * 20] * 4000, top_p=1.0, max_new_tokens=1, batch_size=512)
    probs = np.exp(scorer.next_logprobs([prompt])[0])
    probs[scorer.tokenizer.eos_token_id] = 0  # EOS is not written
    drawn = np.bincount([row[0] for row in new[::2] if row], minlength=scorer.vocab_size) / 4000
    assert np.abs(drawn - probs).max() < 4 * math.sqrt(probs.max() / 4000)


def test_sampling_stops_at_the_models_length(scorer):
    out = scorer.sample_ids([[5] * 126, [5] * 100], top_p=1.0, max_new_tokens=50)
    assert len(out[0]) <= 2
    assert len(out[1]) <= 28
    with pytest.raises(ValueError, match="sampling needs 1 to 127"):
        scorer.sample_ids([[5] * 128])


def test_sampled_text_is_the_continuation_alone(scorer):
    texts = scorer.sample(["The nurse said that", "He"], max_new_tokens=4, seed=0)
    assert len(texts) == 2
    assert all("<|endoftext|>" not in text and not text.startswith("The nurse") for text in texts)


def test_encode_and_word_tokens(scorer, tiny_tokenizer):
    assert scorer.encode(["He"], bos=True)[0][0] == tiny_tokenizer.bos_token_id
    assert scorer.encode(["He"], bos=True)[0][1:] == scorer.encode(["He"])[0]
    assert scorer.encode([]) == []
    token = scorer.word_token("he")
    assert token is not None
    assert tiny_tokenizer.decode([token]) == " he"
    assert scorer.word_token("incomprehensibilities") is None
    assert encode_after(tiny_tokenizer, []) == []
    after = scorer.encode_pairs([("He  ", "left"), ("He", "  left")], bos=True)
    assert after[0] == after[1] == (scorer.encode(["He"], bos=True)[0], scorer.encode(["  left"])[0])


def sentencepiece(kind):
    """A random GPT-2 with a tokenizer like Llama 2's: a blank before every text; `metaspace`: unless it has one."""
    made = {"llama_2": llama_2, "metaspace": metaspace}[kind]().backend_tokenizer
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_embd=16, n_head=2, n_positions=64))
    return Scorer(model, tokenizer, device="cpu")


@pytest.mark.parametrize("kind", ["llama_2", "metaspace"])
def test_words_and_texts_where_every_text_begins_with_a_blank(kind):
    """The word inside a text, not " word" as a text of its own; and a continuation keeps the blank it begins with."""
    scorer = sentencepiece(kind)
    she = scorer.tokenizer.convert_tokens_to_ids("▁she")
    assert scorer.word_token("she") == scorer.encode(["The nurse said that she"])[0][-1] == she
    context = scorer.encode(["The nurse said that"])[0]
    assert scorer.encode_pairs([("The nurse said that", " she")]) == [(context, [she])]
    assert encode_after(scorer.tokenizer, [" she", " nurse said"])[0] == [she]
    assert honest._word_tokens(scorer)[0][she]
    prompts, options = ["The nurse said that"] * 40, {"top_p": 1.0, "max_new_tokens": 4, "seed": 0}
    texts = scorer.sample(prompts, **options)
    ids = scorer.encode(prompts)
    for prompt, text, begin, new in zip(prompts, texts, ids, scorer.sample_ids(ids, **options)):
        assert prompt + text == scorer.tokenizer.decode(begin + new)
    assert sum(text.startswith(" ") for text in texts) > 4


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path, tiny_gpt2, scorer):
    with pytest.raises(ValueError, match="no such folder"):
        Scorer(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="not a model folder"):
        Scorer(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_gpt2 / name).read_bytes())
    with pytest.raises(ValueError, match="has no tokenizer"):
        Scorer(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"needs config\.json and \*\.safetensors"):
        Scorer(tmp_path)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        Scorer(scorer.model)
    with pytest.raises(ValueError, match="batch_size 0"):
        Scorer(tiny_gpt2, batch_size=0)
    with pytest.raises(ValueError, match="model no-such-model"):
        Scorer("no-such-model")
    for device in ("foo", "cuda:99"):
        with pytest.raises(ValueError, match=f"^device '{device}': .+$"):
            Scorer(tiny_gpt2, device=device)


def test_truncated_weights_are_refused(tmp_path, tiny_gpt2):
    for file in tiny_gpt2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes((tiny_gpt2 / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"damaged or incomplete"):
        Scorer(tmp_path)


@pytest.mark.parametrize("options", [{"top_p": 0}, {"top_p": 1.5}, {"temperature": 0}, {"max_new_tokens": 0}])
def test_sampling_options_are_checked(scorer, options):
    with pytest.raises(ValueError, match="needs 0 < top_p"):
        scorer.sample_ids([[1]], **options)


def test_too_long_sequences_are_refused(scorer):
    with pytest.raises(ValueError, match="a text of 129 tokens: this model takes 1 to 128"):
        scorer.token_logprobs([[1] * 129])


# hidden states


@pytest.mark.parametrize("layer", [-1, 0, 2, 4])
def test_hidden_states_equal_one_by_one(tiny_gpt2, tiny_tokenizer, sharp_scorer, sequences, layer):
    positions = [[0, -1, len(ids) // 2] for ids in sequences]
    found = sharp_scorer.hidden_states(sequences, positions, layer=layer)
    one = Scorer(sharp_scorer.model, tiny_tokenizer, device="cpu", batch_size=1)
    for at_once, alone, ids, chosen in zip(
        found, one.hidden_states(sequences, positions, layer=layer), sequences, positions, strict=True
    ):
        with torch.inference_mode():
            output = sharp_scorer.model(torch.tensor([ids]), output_hidden_states=True)
        np.testing.assert_allclose(at_once, output.hidden_states[layer][0, chosen].numpy(), atol=1e-5)
        np.testing.assert_allclose(at_once, alone, atol=1e-5)
        assert at_once.dtype == np.float32


def test_hidden_states_are_what_the_output_layer_reads(sharp_scorer, sequences):
    head = sharp_scorer.model.get_output_embeddings().weight.detach().numpy()
    for states, ids in zip(sharp_scorer.hidden_states(sequences[:3]), sequences):
        assert states.shape == (len(ids), sharp_scorer.width)
        logits = sharp_scorer.model(torch.tensor([ids])).logits[0].detach().numpy()
        np.testing.assert_allclose(states @ head.T, logits, atol=1e-4)


def test_states_from_embeddings_carry_gradients(sharp_scorer, sequences):
    batch_BT = sharp_scorer.pad(sequences[:2])
    embedded = sharp_scorer.model.get_input_embeddings()(batch_BT).detach().requires_grad_()
    states = sharp_scorer.states(embedded_BTD=embedded)
    torch.testing.assert_close(states, sharp_scorer.states(batch_BT))
    states[0, 0, 0].backward()
    assert embedded.grad[0, 0].abs().sum() > 0
    assert embedded.grad[0, 1:].abs().sum() == 0  # causal: what comes later has no part in it


def test_hidden_states_of_another_family(tiny_tokenizer, sequences):
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    llama = Scorer(sharp(LlamaForCausalLM(config)), tiny_tokenizer, device="cpu")
    for layer in (-1, 1):
        for found, ids in zip(llama.hidden_states(sequences[:8], layer=layer), sequences):
            with torch.inference_mode():
                expected = llama.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_layer_that_is_not_there_is_refused(scorer):
    with pytest.raises(ValueError, match=r"layer 5: must be 0 \(embeddings\) to 4, or -1"):
        scorer.hidden_states([[1, 2]], layer=5)
