import itertools
import pickle
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Passage, Reversal, Reverser, Span
from counterfactuals.tokens.align import AlignedPair, AlignedText, Splicer, cut
from counterfactuals.tokens.corpus import read_texts
from tests.conftest import TINY_TEXTS

REVERSER = Reverser(load_lexicon("gender"))


@pytest.fixture(scope="module")
def gpt2_tokenizer(shared_data):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(shared_data / "gpt2_tokenizer" / "tokenizer.json"), eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="module")
def paragraphs(shared_data):
    articles = itertools.islice(read_texts(str(shared_data / "wikipedia_articles.jsonl.gz")), 400)
    return [p for article in articles for p in article.split("\n") if p.strip()][:600]


def trained(model, trainer, **parts) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(TINY_TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level() -> PreTrainedTokenizerFast:
    """As Llama 3's and Qwen's."""
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    pre = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=sorted(alphabet), show_progress=False)
    return trained(models.BPE(), trainer, normalizer=normalizers.NFC(), pre_tokenizer=pre)


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's, uncased."""
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    parts = {"normalizer": normalizers.BertNormalizer(), "pre_tokenizer": pre_tokenizers.BertPreTokenizer()}
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, **parts)


def unigram() -> PreTrainedTokenizerFast:
    """As T5's."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", initial_alphabet=["▁"], show_progress=False
    )
    return trained(models.Unigram(), trainer, normalizer=normalizers.NFKC(), pre_tokenizer=pre)


def metaspace(**options) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    pre = pre_tokenizers.Metaspace(**options)
    return trained(models.BPE(unk_token="<unk>", fuse_unk=True), trainer, pre_tokenizer=pre)


def llama_2() -> PreTrainedTokenizerFast:
    """The blank as ▁ by the normalizer, a first one put before, and no splitting into words."""
    made = metaspace(split=True).backend_tokenizer
    made.pre_tokenizer = None
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=made)


KINDS = {  # how to make it, and whether a text can be tokenised word by word
    "llama_3": (byte_level, True),
    "bert": (word_piece, True),
    "t5": (unigram, True),
    "metaspace": (metaspace, True),
    "metaspace_first": (partial(metaspace, prepend_scheme="first", split=True), True),
    "across_words": (partial(metaspace, split=False), False),
    "llama_2": (llama_2, False),
}


@pytest.fixture(scope="module")
def tokenizers(tiny_tokenizer):
    return {name: make() for name, (make, _) in KINDS.items()} | {"gpt2": tiny_tokenizer}


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
def test_which_tokenizers_go_word_by_word(kind, tokenizers):
    assert Splicer(tokenizers[kind]).by_word == KINDS.get(kind, (None, True))[1]


def check(pair: AlignedPair, reversal: Reversal, tokenizer) -> None:
    """The properties every alignment must have."""
    backend = tokenizer.backend_tokenizer
    old = backend.encode(reversal.text, add_special_tokens=False)
    new = backend.encode(reversal.reversed, add_special_tokens=False)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    assert pair.input_ids.tolist() == bos + old.ids + eos
    assert pair.cf_input_ids.tolist() == bos + new.ids + eos
    assert all(array.dtype == np.int32 for array in (pair.input_ids, pair.cf_input_ids, pair.cf_index))

    index = pair.cf_index.tolist()
    assert len(index) == len(pair.input_ids)
    aligned = [s for s in index if s >= 0]
    assert all(a < b for a, b in itertools.pairwise(aligned)) and all(s < len(pair.cf_input_ids) for s in aligned)
    if not reversal.spans:
        assert index == list(range(len(pair.input_ids)))
        return
    index = [s - len(bos) if s >= 0 else -1 for s in index[len(bos) : len(index) - len(eos)]]

    def touches(a: int, b: int) -> bool:
        return any(a < span.end and span.start < b for span in reversal.spans)

    def carried(place: int) -> int:
        return place + sum((s.cf_end - s.cf_start) - (s.end - s.start) for s in reversal.spans if s.end <= place)

    # a token outside the replaced words stands for the same characters, or is next to a replaced word's tokens
    anchored = []
    for t, ((a, b), s) in enumerate(zip(old.offsets, index)):
        there = s >= 0 and not touches(a, b) and new.ids[s] == old.ids[t]
        place = there and new.offsets[s] in {(carried(a), carried(b)), (a + carried(b) - b, carried(b))}
        anchored.append(place and reversal.text[a:b] == reversal.reversed[slice(*new.offsets[s])])
    for is_anchored, run in itertools.groupby(range(len(index)), anchored.__getitem__):
        run = list(run)
        if is_anchored:
            continue
        before, after = run[0] - 1, run[-1] + 1
        s_begin = index[before] + 1 if before >= 0 else 0
        s_end = index[after] if after < len(index) else len(new.ids)
        begin = old.offsets[before][1] if before >= 0 else 0  # with characters that no token holds
        end = old.offsets[after][0] if after < len(index) else len(reversal.text)
        assert any(begin <= span.end and span.start <= end for span in reversal.spans), (run, old.tokens, new.tokens)
        assert all(index[t] == -1 or s_begin <= index[t] < s_end for t in run)


def test_real_text(paragraphs, gpt2_tokenizer, tokenizers):
    reversals = [REVERSER(text) for text in paragraphs]
    assert sum(bool(r.spans) for r in reversals) > 100
    for name, tokenizer in {"real gpt2": gpt2_tokenizer, **tokenizers}.items():
        some = reversals if name == "real gpt2" else reversals[:40]
        pairs = Splicer(tokenizer).pairs(some)
        for reversal, pair in zip(some, pairs):
            check(pair, reversal, tokenizer)
        index = np.concatenate([pair.cf_index for pair in pairs if pair.reversed])
        assert (index >= 0).mean() > 0.97, name


ROLES = ["he", "She", "HIS", "her", "mother-in-law", "husband's", "Mr.", "Mary", "John", "waitress", "she’d", "women"]
REST = [
    "",
    "-",
    "'",
    "’",
    "'s",
    ".",
    "“",
    "42",
    "é",
    "e\u0301",
    "\u0301",
    "😀",
    "👩‍👩‍👧",
    "שלום",
    "日本語",
    "\u200b",
    "\u200d",
]
REST += ["\x00", "\x1c", "\ufeff", "<|endoftext|>", "<unk>", "▁", "Ġ", "_", "x" * 300, "ﬁ", "İ", "ǆ", "word", "a"]
BLANKS = [" "] * 8 + ["  ", "\n", "\r\n", "\n\n", "\t", "\u00a0", "\u2028", "\u3000", " \n "]
PARTS = st.one_of(st.sampled_from(ROLES), st.sampled_from(REST), st.sampled_from(BLANKS), st.text(max_size=3))
KIND = st.sampled_from([*KINDS, "gpt2"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KIND, parts=st.lists(PARTS, max_size=14))
def test_adversarial_text(tokenizers, kind, parts):
    reversal = REVERSER("".join(parts))
    (pair,) = Splicer(tokenizers[kind]).pairs([reversal])
    check(pair, reversal, tokenizers[kind])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KIND, parts=st.lists(st.tuples(PARTS, PARTS, st.integers(0, 3)), max_size=12))
def test_any_replacement(tokenizers, kind, parts):
    """Spans anywhere, empty ones and blanks among the replacements: more than a lexicon would ever do."""
    text, replaced, spans = "", "", []
    for part, other, chance in parts:
        if part and part != other and chance == 0:
            spans.append(Span(len(text), len(text + part), len(replaced), len(replaced + other), "pair"))
        else:
            other = part
        text, replaced = text + part, replaced + other
    reversal = Reversal(text, replaced, tuple(spans))
    (pair,) = Splicer(tokenizers[kind]).pairs([reversal])
    check(pair, reversal, tokenizers[kind])


def test_unequal_token_counts_align_the_first_token_only(gpt2_tokenizer):
    text, replaced = "Ask the landlord about it.", "Ask the landlady about it."
    reversal = Reversal(text, replaced, (Span(8, 16, 8, 16, "pair"),))
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    check(pair, reversal, gpt2_tokenizer)
    counts = [len(gpt2_tokenizer(word).input_ids) for word in (" landlord", " landlady")]
    assert counts[0] < counts[1]
    t = 2  # Ask, the, landlord
    assert pair.cf_index[t] == 2 and pair.cf_index[t + 1] == 2 + counts[1]
    back = Reversal(replaced, text, (Span(8, 16, 8, 16, "pair"),))
    mirrored = Splicer(gpt2_tokenizer).pairs([back])[0]
    assert mirrored.cf_index[t : t + counts[1]].tolist() == [2] + [-1] * (counts[1] - 1)


@pytest.mark.parametrize(
    "text",
    [
        "She left.",
        "(he said)",
        "“Her,” he’d told his wife’s ex-husband.",
        "his\n\nHER  sister-in-law\u00a0was",
        "he/she",
    ],
)
def test_spans_at_edges_quotes_and_blanks(text, gpt2_tokenizer):
    reversal = REVERSER(text)
    assert reversal.spans
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    check(pair, reversal, gpt2_tokenizer)


def test_a_cue_is_found_at_its_token(gpt2_tokenizer):
    reversal = REVERSER("The driver was pregnant and tired.")
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    assert gpt2_tokenizer.decode([pair.input_ids[pair.cue]]).strip() == "pregnant"


def test_cut_keeps_both_sides_within_the_limit_and_aligned(paragraphs, gpt2_tokenizer):
    reversals = [REVERSER(text) for text in paragraphs[:300]]
    for text in Splicer(gpt2_tokenizer).texts(reversals):
        pair, pieces = text.pair, list(cut(text, 24))
        assert all(len(p.input_ids) <= 24 and len(p.cf_input_ids) <= 24 for p in pieces)
        whole = np.concatenate([p.input_ids for p in pieces]).tolist()
        assert whole == pair.input_ids.tolist()[: len(whole)] and len(pair.input_ids) - len(whole) <= 1
        begin = cf_begin = 0
        for piece in pieces:
            index = pair.cf_index[begin : begin + len(piece.input_ids)]
            assert np.array_equal(piece.cf_index, np.where(index < 0, -1, index - cf_begin))
            begin, cf_begin = begin + len(piece.input_ids), cf_begin + len(piece.cf_input_ids)


def test_a_limit_shorter_than_a_word_is_refused():
    pair = AlignedPair(np.arange(6), np.arange(9), np.array([0, 1, -1, -1, -1, 8]))
    with pytest.raises(ValueError, match=r"data\.max_length: 2"):
        list(cut(AlignedText(pair), 2))


def by_passage(*passages: tuple[str, str, float, str]) -> Reversal:
    """(text, reversed text, doubt, word that stays) of each passage; one word differs, if any."""
    text, other = "", ""
    spans, stays, found = [], [], []
    for before, after, doubt, stay in passages:
        if before != after:
            a, b = before.split(), after.split()
            n = next(n for n in range(len(a)) if a[n] != b[n])
            place = len(" ".join(a[:n])) + bool(n)
            start, cf_start = len(text) + place, len(other) + place
            spans.append(Span(start, start + len(a[n]), cf_start, cf_start + len(b[n]), "pair"))
        stays += [len(text) + before.index(stay)] if stay else []
        found.append(Passage(len(text), len(text) + len(before), doubt, before != after))
        text, other = text + before, other + after
    return Reversal(text, other, tuple(spans), (), tuple(stays), tuple(found))


DOCUMENT = by_passage(
    ("The nurse came in.\n", "The nurse came in.\n", 0.0, ""),
    ("Then she left us.\n", "Then he left us.\n", 0.1, ""),
    ("It rained. ", "It rained. ", 0.0, ""),
    ("Mary was his wife.\n", "Mary was his wife.\n", 0.6, "Mary"),
    ("A cold day.\n", "A cold day.\n", 0.0, ""),
    ("The king slept.\n", "The queen slept.\n", 0.2, ""),
    ("The pregnant girl ran.", "The pregnant boy ran.", 0.3, "pregnant"),
)


@pytest.mark.parametrize("kind", [*KINDS, "gpt2"])
def test_a_sequence_is_reversed_or_left_as_a_whole(kind, tokenizers):
    tokenizer = tokenizers[kind]
    (sequences,) = Splicer(tokenizer).sequences([DOCUMENT], 100)
    if kind == "gpt2":
        first, left, last = (
            tuple(tokenizer.decode(ids).strip() for ids in (p.input_ids, p.cf_input_ids)) for p in sequences
        )
        end = tokenizer.eos_token
        assert first == tuple(f"{end}The nurse came in.\nThen {w} left us.\nIt rained." for w in ("she", "he"))
        assert left == ("Mary was his wife.\nA cold day.",) * 2
        assert last == tuple(
            f"The {a} slept.\nThe pregnant {b} ran.{end}" for a, b in (("king", "girl"), ("queen", "boy"))
        )
        assert tokenizer.decode([sequences[2].input_ids[sequences[2].cue]]).strip() == "p"
    assert [pair.reversed for pair in sequences] == [True, False, True]
    assert [pair.doubt for pair in sequences] == pytest.approx([0.1, 0.6, 1 - 0.8 * 0.7])
    assert sequences[0].cue == -1 and sequences[1].cue == 0
    assert 0 < sequences[2].cue < len(sequences[2].input_ids)
    whole = Splicer(tokenizer).pairs([DOCUMENT])[0]
    assert np.array_equal(whole.input_ids, np.concatenate([pair.input_ids for pair in sequences]))
    assert np.array_equal(whole.cf_input_ids, np.concatenate([pair.cf_input_ids for pair in sequences]))


def test_doubt_and_cue_are_of_what_stands_in_the_sequence(tokenizers):
    tokenizer = tokenizers["gpt2"]
    reversal = by_passage(*[("He saw a cold day and more.\n", "She saw a cold day and more.\n", 0.1, "")] * 3)
    (whole,) = Splicer(tokenizer).sequences([reversal], 100)
    assert [pair.doubt for pair in whole] == pytest.approx([1 - 0.9**3])
    length = len(whole[0].input_ids) // 3
    (parts,) = Splicer(tokenizer).sequences([reversal], length // 2)
    assert {round(pair.doubt, 4) for pair in parts} <= {0.1, 0.19}
    assert all(pair.cue == -1 for pair in parts)
    plain = Splicer(tokenizer).sequences([Reversal("A cold day.", "A cold day.")], 100)[0][0]
    assert (plain.doubt, plain.cue, plain.reversed) == (0.0, -1, False)


def test_a_pair_with_too_much_doubt_is_a_sequence_that_was_left(tokenizers):
    sequences = Splicer(tokenizers["gpt2"]).sequences([DOCUMENT], 100)[0]
    for pair in sequences:
        assert pair.within(None) is pair and pair.within(pair.doubt) is pair
        other = pair.within(0.05)
        assert not other.reversed and np.array_equal(other.input_ids, pair.input_ids)
        assert other.doubt == pair.doubt and np.array_equal(other.cf_index, np.arange(len(pair.input_ids)))
    for word, pair in ((" she", sequences[0]), (" king", sequences[2])):
        cue = pair.within(0.05).cue
        assert tokenizers["gpt2"].decode(pair.input_ids[cue : cue + 4]).startswith(word)
    assert sequences[2].cue > sequences[2].within(0.05).cue and sequences[1].within(0.05) is sequences[1]


def test_what_is_remembered_changes_nothing(paragraphs, gpt2_tokenizer, monkeypatch):
    reversals = [REVERSER(text) for text in paragraphs[:200]]
    splicer = Splicer(gpt2_tokenizer)
    first = splicer.pairs(reversals)
    monkeypatch.setattr("counterfactuals.tokens.align.MEMORY", 50)  # less than one call brings
    forgetful = pickle.loads(pickle.dumps(splicer))
    assert not forgetful._ids
    again = [pair for n in range(0, 200, 20) for pair in forgetful.pairs(reversals[n : n + 20])]
    assert not forgetful._ids and len(splicer._ids) > 1000
    for a, b in zip(first, again):
        assert np.array_equal(a.cf_input_ids, b.cf_input_ids) and np.array_equal(a.cf_index, b.cf_index)


def test_padding_and_truncation_of_the_tokenizer_do_not_matter(tiny_tokenizer):
    own = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str()))
    own.backend_tokenizer.enable_padding(length=64)
    own.backend_tokenizer.enable_truncation(4)
    reversal = REVERSER("She told him that her brother had seen the actress there.")
    (pair,) = Splicer(own).pairs([reversal])
    own.backend_tokenizer.no_padding()
    own.backend_tokenizer.no_truncation()
    check(pair, reversal, own)


@pytest.mark.parametrize("kind", ["gpt2", "across_words"])
def test_time_is_linear_in_the_length_of_a_text(kind, tokenizers):
    def seconds(times: int) -> float:
        reversal = REVERSER("She told him that her brother had seen the actress there. " * times)
        splicer = Splicer(tokenizers[kind])
        splicer.pairs([reversal])
        began = time.perf_counter()
        splicer.pairs([reversal])
        return time.perf_counter() - began

    assert seconds(4000) < 30 * seconds(500)  # quadratic: 64


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        Splicer(object())
