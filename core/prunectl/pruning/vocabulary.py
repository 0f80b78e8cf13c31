"""Vocabulary: the entries that a corpus needs, and a tokenizer that holds no others. Works on ``tokenizer.json``.

What stays: every added and special token, every entry that the corpus uses, and single characters (or the byte
entries), so that any other text still tokenizes. Entries keep their order; a new id is the old id's rank among what
stayed. The corpus's own tokenization doesn't change, and that is checked on all of it before anything is kept:

- WordPiece takes the longest match, Unigram the best path: what wins among all entries wins among fewer.
- BPE applies merges by rank. The merges that build a kept entry stay with it, so each step finds the pair that it
  found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from prunectl.errors import InvalidData, InvalidInput, MissingTokenizer
from prunectl.pruning.merges import Merges

CHUNK = 1000
"""Texts that are tokenized at once."""
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A reduced vocabulary. ``kept``: the original ids that stay; an entry's new id is its position here."""

    kept: tuple[int, ...]
    total: int
    """Entries of the original model, that is rows of its embedding."""
    directory: Path
    """Where the reduced tokenizer's files are."""

    @property
    def rows(self) -> list[int]:
        """Rows of the original embedding that stay, in order; a token that the model never had a row for has none."""
        return [index for index in self.kept if index < self.total]

    def numbers(self) -> dict[int, int]:
        """Original id -> new id."""
        return {old: new for new, old in enumerate(self.kept)}


def reduce(
    source: Path, texts: Sequence[str], config: Mapping[str, Any], directory: Path, *, keep: Iterable[int] | None = None
) -> Vocabulary:
    """Write to ``directory`` the tokenizer in ``source`` without the entries that ``texts`` don't need.

    ``config`` is the model's: ids that it names stay. ``keep`` are ids that another engine has chosen; then nothing
    stays with them but special and added tokens. Raises MissingTokenizer, InvalidData (field ``vocab``) where the
    corpus has no text, and InvalidInput where the tokenizer is of a kind that can't be reduced or the corpus would
    tokenize otherwise.
    """
    if not texts:
        raise InvalidData("the corpus holds no text, so nothing says which entries to keep", field="vocab")
    document = _described(load_tokenizer(source), directory)
    before = _plain(document)
    names = {index: token for token, index in before.get_vocab(with_added_tokens=True).items()}
    if keep is None:
        pieces = {names[index] for index in _used(before, texts)} | _always(document)
    else:
        pieces = {names[index] for index in keep}
    kept = _kept_ids(document, pieces, names, config)
    if keep is None and (changed := _changed(before, _plain(_without(document, kept, names)), kept, texts)):
        # An unknown word in WordPiece is known to be so by pieces that no result shows. With every entry that occurs
        # inside the words of such a text, its words see what they saw in the whole vocabulary.
        pieces |= set(_inside(before, changed, set(names.values()), document["model"]))
        kept = _kept_ids(document, pieces, names, config)
    _write(document, kept, names, directory)
    reduced = load_tokenizer(directory).backend_tokenizer
    reduced.no_truncation()
    reduced.no_padding()
    if _changed(before, reduced, kept, texts):
        raise InvalidInput(
            "vocab: with fewer entries this tokenizer would cut the corpus's text otherwise",
            field="vocab",
            hint="leave the engine out" if keep is not None else "this is a defect: please report the tokenizer",
        )
    return Vocabulary(tuple(kept), int(config["vocab_size"]), directory)


def config_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that are token ids: ``pad_token_id``, ``eos_token_id`` (also as a list) …"""
    return {key: value for key, value in config.items() if key.endswith(("_token_id", "_token_ids")) and _ids(value)}


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [index for index in values if isinstance(index, int) and not isinstance(index, bool) and index >= 0]


# -- which entries ----------------------------------------------------------------------------------------------------


def _used(tokenizer: Tokenizer, texts: Sequence[str]) -> set[int]:
    found: set[int] = set()
    for encoded in _encoded(tokenizer, texts):
        found.update(encoded)
    return found


def _always(document: Json) -> set[str]:
    """Entries that stay whatever the corpus: unknown token, characters or bytes, Unigram's least likely entry."""
    model = document["model"]
    pieces = set(_pieces(model))
    stay = {str(model["unk_token"])} if model.get("unk_token") else set()
    match model["type"]:
        case "WordPiece":
            prefix = model["continuing_subword_prefix"]
            stay |= {piece for piece in pieces if len(piece.removeprefix(prefix)) == 1}
        case "Unigram":
            stay |= {piece for piece in pieces if len(piece) == 1}
            if model.get("unk_id") is not None:
                stay.add(model["vocab"][model["unk_id"]][0])
            # An unknown character costs as much as the least likely entry and some more: that cost must stay.
            stay.add(min(model["vocab"], key=lambda entry: entry[1])[0])
        case "BPE":
            suffix = model.get("end_of_word_suffix") or ""
            if not model.get("byte_fallback"):
                stay |= {piece for piece in pieces if len(piece.removesuffix(suffix)) == 1}
    return stay | (_BYTES & pieces if model.get("byte_fallback") else set())


def _kept_ids(document: Json, pieces: set[str], names: Mapping[int, str], config: Mapping[str, Any]) -> list[int]:
    model = document["model"]
    if model["type"] == "BPE":
        pieces = pieces | Merges(model).ancestors(pieces)
    added = {int(token["id"]) for token in document["added_tokens"]}
    kept = {index for index, token in names.items() if token in pieces} | added | set(_processor_ids(document))
    wanted = {index for value in config_ids(config).values() for index in _ids(value)}
    # An id that the configuration names and the tokenizer doesn't comes last: the tokenizer's own have no gaps then.
    nameless = {index for index in wanted - set(names) if index < int(config["vocab_size"])}
    return [*sorted(kept | (wanted & set(names))), *sorted(nameless)]


def _processor_ids(document: Json) -> Iterator[int]:
    for part in _processors(document):
        for special in (part.get("special_tokens") or {}).values():
            yield from special["ids"]
        for name in ("sep", "cls"):
            if name in part:
                yield part[name][1]


def _processors(document: Json) -> list[Json]:
    top = document.get("post_processor")
    return [] if top is None else top["processors"] if top["type"] == "Sequence" else [top]


def _inside(tokenizer: Tokenizer, texts: Sequence[str], entries: set[str], model: Json) -> Iterator[str]:
    """Every entry that is a part of a word of ``texts``, as it stands or as a continuation."""
    longest, mark = max(len(entry) for entry in entries), model.get("continuing_subword_prefix") or ""
    for word in {word for text in texts for word in _words(tokenizer, text)}:
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + longest) + 1):
                yield from (piece for piece in (word[start:end], mark + word[start:end]) if piece in entries)


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    if tokenizer.pre_tokenizer is None:
        return [normal]
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


# -- the tokenizer without the others ---------------------------------------------------------------------------------


def _without(document: Json, kept: Sequence[int], names: Mapping[int, str]) -> Json:
    """The description with ``kept`` entries alone, renumbered."""
    ranks = {old: new for new, old in enumerate(kept)}
    stay = {names[old] for old in kept if old in names}
    model = dict(document["model"])
    if model["type"] == "Unigram":
        unknown = None if model.get("unk_id") is None else model["vocab"][model["unk_id"]][0]
        model["vocab"] = [entry for entry in model["vocab"] if entry[0] in stay]
        model["unk_id"] = next((i for i, entry in enumerate(model["vocab"]) if entry[0] == unknown), None)
    else:
        model["vocab"] = {token: ranks[old] for token, old in model["vocab"].items() if old in ranks}
    if model["type"] == "BPE":
        model["merges"] = Merges(model).within(set(model["vocab"]))
    padding = document.get("padding")
    return {
        **document,
        "model": model,
        "added_tokens": [{**token, "id": ranks[token["id"]]} for token in document["added_tokens"]],
        "post_processor": _renumbered(document.get("post_processor"), ranks),
        "padding": padding and {**padding, "pad_id": ranks.get(padding["pad_id"], 0)},
    }


def _renumbered(processor: Json | None, ranks: Mapping[int, int]) -> Json | None:
    if processor is None:
        return None
    changed = dict(processor)
    if changed["type"] == "Sequence":
        changed["processors"] = [_renumbered(part, ranks) for part in changed["processors"]]
    if changed.get("special_tokens"):
        changed["special_tokens"] = {
            name: {**special, "ids": [ranks[index] for index in special["ids"]]}
            for name, special in changed["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if name in changed:
            token, index = changed[name]
            changed[name] = [token, ranks[index]]
    return changed


def _write(document: Json, kept: Sequence[int], names: Mapping[int, str], directory: Path) -> None:
    text = json.dumps(_without(document, kept, names), ensure_ascii=False)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = directory / "tokenizer_config.json"
    stated = json.loads(settings.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in stated:
        ranks = {str(old): str(new) for new, old in enumerate(kept)}
        stated["added_tokens_decoder"] = {ranks[old]: token for old, token in stated["added_tokens_decoder"].items()}
        settings.write_text(json.dumps(stated, indent=2, ensure_ascii=False), encoding="utf-8")


def _described(tokenizer: PreTrainedTokenizerBase, directory: Path) -> Json:
    """Write the tokenizer's files as transformers has it in memory, and give its tokenizer.json."""
    if not tokenizer.is_fast:
        raise InvalidInput(
            f"vocab: {type(tokenizer).__name__} has no tokenizer.json, which the vocabulary is reduced in",
            field="vocab",
            hint="leave --vocab out for this model",
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    document: Json = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    kind = document["model"]["type"]
    if kind not in ("WordPiece", "Unigram", "BPE"):
        raise InvalidInput(
            f"vocab: a {kind} tokenizer can't be reduced; WordPiece, Unigram and BPE can",
            field="vocab",
            hint="leave --vocab out for this model",
        )
    if kind == "BPE" and document["model"].get("continuing_subword_prefix"):
        raise InvalidInput(
            "vocab: a BPE tokenizer that marks continued words can't be reduced", field="vocab",
            hint="leave --vocab out for this model",
        )  # fmt: skip
    return document


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer beside config.json, from local files alone. Raises MissingTokenizer."""
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise MissingTokenizer(
            f"the tokenizer can't be loaded: {error}",
            hint="tokenizer.json (or the family's vocabulary files) must lie beside config.json",
        ) from error


def _plain(document: Json) -> Tokenizer:
    """The tokenizer without truncation and padding: a corpus's texts are read to their ends."""
    return Tokenizer.from_str(json.dumps({**document, "truncation": None, "padding": None}))


def _pieces(model: Json) -> list[str]:
    return [entry[0] for entry in model["vocab"]] if model["type"] == "Unigram" else list(model["vocab"])


# -- comparing --------------------------------------------------------------------------------------------------------


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), CHUNK):
        for encoded in tokenizer.encode_batch_fast(list(texts[start : start + CHUNK]), add_special_tokens=False):
            yield encoded.ids


def _changed(before: Tokenizer, after: Tokenizer, kept: Sequence[int], texts: Sequence[str]) -> list[str]:
    """The texts that ``after`` doesn't give the tokens that ``before`` gives them, in its own numbers."""
    pairs = zip(texts, _encoded(before, texts), _encoded(after, texts), strict=True)
    return [text for text, old, ids in pairs if old != [kept[new] for new in ids]]
