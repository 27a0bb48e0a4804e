import itertools

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from counterfactuals.align import AlignedPair, Splicer, cut
from counterfactuals.corpus import read_texts
from counterfactuals.lexicon import load_lexicon
from counterfactuals.pairs import PairSet, build_pairs, make_pairs
from counterfactuals.reverse import Reversal, Span, reverse

GENDER = load_lexicon("gender")


@pytest.fixture(scope="module")
def gpt2_tokenizer(shared_data):
    return PreTrainedTokenizerFast(
        tokenizer_file=str(shared_data / "gpt2_tokenizer" / "tokenizer.json"), eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="module")
def paragraphs(shared_data):
    articles = itertools.islice(read_texts(str(shared_data / "wikipedia_articles.jsonl.gz")), 400)
    return [p for article in articles for p in article.split("\n") if p.strip()][:1500]


def check(pair: AlignedPair, reversal: Reversal, tokenizer) -> None:
    """The properties every alignment must have."""
    t_aligned = np.flatnonzero(pair.cf_index >= 0)
    s_aligned = pair.cf_index[t_aligned]
    assert len(pair.cf_index) == len(pair.input_ids)
    assert (np.diff(s_aligned) > 0).all() and (s_aligned < len(pair.cf_input_ids)).all()
    ids, cf_ids = pair.input_ids.tolist(), pair.cf_input_ids.tolist()
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == reversal.text
    assert tokenizer.decode(cf_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == reversal.reversed
    changed = [tokenizer.decode([ids[t]]).strip() for t, s in zip(t_aligned, s_aligned) if ids[t] != cf_ids[s]]
    replaced = " ".join(reversal.text[span.start : span.end] for span in reversal.spans)
    assert all(piece in replaced for piece in changed), (changed, replaced)
    if not reversal.spans:
        assert (pair.cf_index == np.arange(len(ids))).all()


def test_spliced_ids_equal_tokenising_the_counterfactual_on_real_text(paragraphs, gpt2_tokenizer):
    reversals = [reverse(text, GENDER) for text in paragraphs]
    pairs = Splicer(gpt2_tokenizer).pairs(reversals)
    assert sum(bool(r.spans) for r in reversals) > 300
    for reversal, pair in zip(reversals, pairs):
        check(pair, reversal, gpt2_tokenizer)
        whole = gpt2_tokenizer(reversal.reversed, add_special_tokens=False).input_ids
        assert pair.cf_input_ids[:-1].tolist() == whole  # the last one is <|endoftext|>


def test_unequal_token_counts_align_the_first_token_only(gpt2_tokenizer):
    text, replaced = "Ask the landlord about it.", "Ask the landlady about it."
    reversal = Reversal(text, replaced, (Span(8, 16, 8, 16, "pair"),), None)
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    check(pair, reversal, gpt2_tokenizer)
    counts = [len(gpt2_tokenizer(word).input_ids) for word in (" landlord", " landlady")]
    assert counts[0] < counts[1]
    t = 2  # Ask, the, landlord
    assert pair.cf_index[t] == 2 and pair.cf_index[t + 1] == 2 + counts[1]
    back = Reversal(replaced, text, (Span(8, 16, 8, 16, "pair"),), None)
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
    reversal = reverse(text, GENDER)
    assert reversal.spans
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    check(pair, reversal, gpt2_tokenizer)
    assert pair.cf_input_ids[:-1].tolist() == gpt2_tokenizer(reversal.reversed).input_ids


def test_a_cue_is_found_at_its_token(gpt2_tokenizer):
    reversal = reverse("The driver was pregnant and tired.", GENDER)
    pair = Splicer(gpt2_tokenizer).pairs([reversal])[0]
    assert gpt2_tokenizer.decode([pair.input_ids[pair.cue]]).strip() == "pregnant"


def test_cut_keeps_both_sides_within_the_limit_and_aligned(paragraphs, gpt2_tokenizer):
    reversals = [reverse(text, GENDER) for text in paragraphs[:300]]
    for pair in Splicer(gpt2_tokenizer).pairs(reversals):
        pieces = list(cut(pair, 24))
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
        list(cut(pair, 2))


def test_a_pair_set_reads_back_what_was_made(paragraphs, gpt2_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("counterfactuals.pairs.SHARD_TOKENS", 10_000)
    options = {"source_fingerprint": "x", "max_length": 64}
    texts = paragraphs[:400]
    made = list(make_pairs(texts, GENDER, gpt2_tokenizer, max_length=64))
    stored = build_pairs(lambda: texts, GENDER, gpt2_tokenizer, tmp_path, **options)
    assert stored.meta["shards"] > 2 and len(stored) == len(made)
    for i in range(len(made)):
        for name in ("input_ids", "cf_input_ids", "cf_index", "cue"):
            assert np.array_equal(getattr(stored[i], name), getattr(made[i], name)), (i, name)
    assert stored.has_cf.tolist() == [pair.reversed for pair in made]
    again = build_pairs(lambda: pytest.fail("built twice"), GENDER, gpt2_tokenizer, tmp_path, **options)
    assert len(again) == len(stored)
    other = build_pairs(lambda: texts[:3], GENDER, gpt2_tokenizer, tmp_path, source_fingerprint="x", max_length=32)
    assert other.folder != stored.folder


def test_a_killed_build_leaves_nothing_to_trust(gpt2_tokenizer, tmp_path):
    def dies():
        yield "She left."
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pairs(dies, GENDER, gpt2_tokenizer, tmp_path, source_fingerprint="x", max_length=32)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    assert (
        len(build_pairs(lambda: ["He left."], GENDER, gpt2_tokenizer, tmp_path, source_fingerprint="x", max_length=32))
        == 1
    )


def test_damaged_and_foreign_pair_sets_are_refused(gpt2_tokenizer, tmp_path):
    stored = build_pairs(lambda: ["He left."], GENDER, gpt2_tokenizer, tmp_path, source_fingerprint="x", max_length=32)
    with pytest.raises(ValueError, match="made from another corpus"):
        PairSet(stored.folder, "another")
    shard = stored.folder / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a complete pair set"):
        PairSet(stored.folder)


def test_without_a_begin_and_an_end_token_short_texts_are_left_out(tiny_tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    assert bare.bos_token_id is None and bare.eos_token_id is None
    pairs = list(make_pairs(["A", "She left him."], GENDER, bare, max_length=32))
    assert len(pairs) == 1 and pairs[0].reversed


def test_a_tokenizer_without_words_is_refused(tiny_tokenizer):
    from tokenizers import Tokenizer, models

    whole = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(unk_token="u", vocab={"u": 0}, merges=[])))
    with pytest.raises(ValueError, match="splits text into words first"):
        Splicer(whole)


def test_adding_an_end_token_makes_another_pair_set(tiny_tokenizer, tmp_path):
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    options = {"source_fingerprint": "x", "max_length": 32}
    folders = {build_pairs(lambda: ["He left."], GENDER, t, tmp_path, **options).folder for t in (bare, tiny_tokenizer)}
    assert len(folders) == 2
