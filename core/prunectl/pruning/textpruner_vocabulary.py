"""TextPruner's vocabulary pruner: the real library chooses the entries and cuts the rows, for the tokenizers that it
can read.

It writes vocabulary files for tokenizers of older releases; those of BERT and ELECTRA it can, RoBERTa's merges and
SentencePiece models it can't find in current ones. The reduced ``tokenizer.json`` is written by `vocabulary.reduce`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.pruning.textpruner import library


def kept_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """The ids that the library keeps for a corpus: special tokens and what the texts use. Raises EngineUnavailable."""
    from textpruner.tokenizer_utils import SubwordTokenizer

    library()
    with _quiet():
        return [int(index) for index in SubwordTokenizer.get_token_ids(tokenizer=tokenizer, dataiter=list(texts))]


def cut_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> None:
    """Let the library cut embeddings and language-model head to ``kept``, in place; ids and sizes in the configuration,
    and what it leaves at the old size, are `embeddings.cut_vocabulary`'s to follow up. Raises EngineUnavailable.
    """
    found = library()
    with (
        TemporaryDirectory(prefix="prunectl-textpruner-") as output,
        _quiet(),
    ):  # it creates its output directory at once
        pruner: Any = found.VocabularyPruner(
            model, tokenizer, general_config=found.GeneralConfig(use_device=str(model.device), output_dir=output)
        )
        pruner.prune(additional_token_ids=list(kept), save_model=False)


@contextlib.contextmanager
def _quiet() -> Any:
    """Its bars and messages belong on a terminal, not in a job's output."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
