"""Vocabulary: the corpus tokenizes as before, any other text still tokenizes, and the model computes the same for
it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import Model

from prunectl.errors import InvalidData, InvalidInput, MissingTokenizer
from prunectl.pruning import embeddings
from prunectl.pruning.merges import Merges
from prunectl.pruning.vocabulary import Vocabulary, reduce
from support.models import FAMILIES, HEADS, build, model, texts

CORPUS = texts(12)
FOREIGN = ["Ünïcödé straße 漢字 🎉", "zzqxj kwyjibo", "", "  \t x"]
SPECIAL = ["<unk>", "<pad>", "<s>", "</s>"]


def saved(directory: Path, trained: Tokenizer, **settings: Any) -> Path:
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>", **settings
    )
    words.add_tokens([AddedToken("<extra>", special=False), AddedToken("<tool>", special=True)])
    words.save_pretrained(directory)
    return directory


def byte_level(directory: Path) -> Path:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(texts(200), trainer)
    trained.post_processor = processors.RobertaProcessing(("</s>", 3), ("<s>", 2))
    return saved(directory, trained)


def byte_fallback(directory: Path) -> Path:
    """As Llama's: spaces become a character of their own, and what isn't in the vocabulary is spelt in bytes."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=1200, show_progress=False)
    trained.train_from_iterator(texts(200), trainer)
    model_ = json.loads(trained.to_str())["model"]
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece in model_["vocab"] if piece not in pieces]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    bpe: Model = models.BPE(
        vocab, [tuple(pair) for pair in model_["merges"]], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    whole = Tokenizer(bpe)
    whole.normalizer = normalizers.Replace(" ", "▁")
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    template = [("<s>", 2)]
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=template)
    return saved(directory, whole)


def end_of_word(directory: Path) -> Path:
    """As CLIP's and GPT's: a word's last entry is marked."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(texts(200), trainer)
    return saved(directory, trained)


def unigram(directory: Path) -> Path:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=1200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(texts(200), trainer)
    return saved(directory, trained)


def word_piece(directory: Path) -> Path:
    trained = Tokenizer(models.WordPiece(unk_token="<unk>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1200, special_tokens=SPECIAL, show_progress=False)
    trained.train_from_iterator(texts(200), trainer)
    return saved(directory, trained)


KINDS = [byte_level, byte_fallback, end_of_word, unigram, word_piece]


def reduced(directory: Path, kind: Any, corpus: list[str] = CORPUS) -> tuple[Any, Any, Vocabulary]:
    source = kind(directory / "source")
    before = transformers.AutoTokenizer.from_pretrained(source)
    config = {"vocab_size": len(before), "pad_token_id": 1, "eos_token_id": [3]}
    found = reduce(source, corpus, config, directory / "small")
    return before, transformers.AutoTokenizer.from_pretrained(directory / "small"), found


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_tokenizes_as_before_and_much_is_gone(kind: Any, tmp_path: Path) -> None:
    before, after, found = reduced(tmp_path, kind)
    assert len(found.kept) < 0.75 * found.total and len(after) == len(found.kept)
    for text in CORPUS:
        ids = after(text)["input_ids"]
        assert [found.kept[index] for index in ids] == before(text)["input_ids"]
        assert after.convert_ids_to_tokens(ids) == before.convert_ids_to_tokens(before(text)["input_ids"])
        assert after.decode(ids) == before.decode(before(text)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_any_other_text_still_tokenizes(kind: Any, tmp_path: Path) -> None:
    before, after, found = reduced(tmp_path, kind)
    others = [*FOREIGN, *texts(200)[150:]]
    for text in others:
        ids = after(text)["input_ids"]
        assert all(0 <= index < len(found.kept) for index in ids)
        # Nothing that was known becomes unknown: single characters, or bytes, stay.
        assert (after.unk_token_id in ids) <= (before.unk_token_id in before(text)["input_ids"])
        if kind in (byte_level, byte_fallback):
            assert after.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_special_and_added_tokens_stay_with_their_names(kind: Any, tmp_path: Path) -> None:
    before, after, found = reduced(tmp_path, kind)
    for token in [*SPECIAL, "<extra>", "<tool>"]:
        assert found.kept[after.convert_tokens_to_ids(token)] == before.convert_tokens_to_ids(token)
    assert after.all_special_tokens == before.all_special_tokens
    text = f"{CORPUS[0]} <extra><tool> {CORPUS[1]}"
    assert [found.kept[index] for index in after(text)["input_ids"]] == before(text)["input_ids"]


def test_a_word_that_is_unknown_stays_unknown(tmp_path: Path) -> None:
    # Greedy matching fails on "abcd" after "ab". Without "ab" it would succeed: a + ##bcd.
    vocab = {"[UNK]": 0, "a": 1, "ab": 2, "##bcd": 3, "b": 4, "x": 5, "##bc": 6, "xbcd": 7}
    trained = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="[UNK]", pad_token="[UNK]")
    words.save_pretrained(tmp_path / "source")
    before = words("x abcd")["input_ids"]
    assert before == [5, 0]
    # "##bcd" stays, since the model names its id.
    found = reduce(tmp_path / "source", ["x abcd"], {"vocab_size": 8, "eos_token_id": 3}, tmp_path / "small")
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    assert [found.kept[index] for index in after("x abcd")["input_ids"]] == before
    assert 2 in found.kept and 7 not in found.kept


def test_merges_that_build_an_entry_are_its_ancestors() -> None:
    merges = Merges({"merges": [["l", "o"], ["lo", "w"], ["e", "r"], ["low", "er"], ["o", "w"]]})
    assert merges.ancestors({"lower"}) == {"l", "o", "w", "e", "r", "lo", "low", "er", "lower"}
    assert merges.within({"l", "o", "lo", "w", "low"}) == [["l", "o"], ["lo", "w"]]
    marked = Merges({"merges": ["l o", "lo w</w>"], "end_of_word_suffix": "</w>"})
    assert marked.ancestors({"low</w>"}) == {"l", "o", "w</w>", "lo", "low</w>"}


@pytest.mark.parametrize(("family", "head"), [(family, HEADS[place % 3]) for place, family in enumerate(FAMILIES)])
def test_the_smaller_model_computes_the_same_for_the_corpus(family: str, head: str, tmp_path: Path) -> None:
    _same_outputs(family, head, tmp_path)


def test_untied_heads_are_cut_too(tmp_path: Path) -> None:
    _same_outputs("bert", "fill-mask", tmp_path, tie_word_embeddings=False)


def _same_outputs(family: str, head: str, directory: Path, **shape: Any) -> None:
    build(directory / "source", family, head, **shape)
    whole = model(family, head, **shape)
    found = reduce(directory / "source", CORPUS[:4], whole.config.to_dict(), directory / "small")
    words = transformers.AutoTokenizer.from_pretrained(directory / "small")
    taken = ("input_ids", "attention_mask")
    encoded = words(CORPUS[:4], padding=True, truncation=True, max_length=32, return_tensors="pt")
    inputs = {name: encoded[name] for name in taken}
    expected = embeddings.restricted_outputs(whole, found, inputs)
    pad = whole.config.pad_token_id
    embeddings.cut_vocabulary(whole, found)
    with torch.inference_mode():
        got = whole(**inputs)[0]
    assert torch.equal(got, expected)
    assert whole.config.vocab_size == len(found.rows) == whole.get_input_embeddings().weight.size(0)
    assert found.kept[whole.config.pad_token_id] == pad == found.kept[words.pad_token_id]
    assert whole.get_input_embeddings().padding_idx in (None, whole.config.pad_token_id)
    fresh = type(whole)(whole.config).state_dict()
    assert {name: tensor.shape for name, tensor in fresh.items()} == {
        name: tensor.shape for name, tensor in whole.state_dict().items()
    }
    if head == "fill-mask" and whole.config.tie_word_embeddings:
        assert whole.get_output_embeddings().weight is whole.get_input_embeddings().weight


def test_rows_beyond_the_tokenizer_go_and_ids_beyond_the_rows_stay(tmp_path: Path) -> None:
    source = unigram(tmp_path / "source")
    words = transformers.AutoTokenizer.from_pretrained(source)
    padded = {"vocab_size": len(words) + 64, "bos_token_id": len(words) + 3}
    found = reduce(source, CORPUS, padded, tmp_path / "padded")
    assert found.kept[-1] == len(words) + 3, "a row that only the configuration names comes last"
    assert sum(index >= len(words) for index in found.kept) == 1
    short = reduce(source, CORPUS, {"vocab_size": len(words) - 1}, tmp_path / "short")
    assert len(short.rows) == len(short.kept) - 1 and max(short.rows) < len(words) - 1


def test_what_cannot_be_reduced_is_refused(tmp_path: Path) -> None:
    source = unigram(tmp_path / "source")
    with pytest.raises(InvalidData, match="no text"):
        reduce(source, [], {"vocab_size": 10}, tmp_path / "a")
    with pytest.raises(MissingTokenizer):
        reduce(tmp_path / "nowhere", CORPUS, {"vocab_size": 10}, tmp_path / "b")
    level = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=level, unk_token="<unk>")
    words.save_pretrained(tmp_path / "level")
    with pytest.raises(InvalidInput, match="WordLevel") as caught:
        reduce(tmp_path / "level", CORPUS, {"vocab_size": 2}, tmp_path / "c")
    assert caught.value.field == "vocab"
