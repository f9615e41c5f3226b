"""Text to ids and back, exactly: no special token is added, no space is swallowed, offsets cover every character."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tokenizers

from utils.errors import UserError

PROBE = "Aprobe7"


class Encoder:
    """A tokenizer, read through a copy of its fast back end where it has one."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path or "tokenizer"
        self._bare = _bare(tokenizer)
        if not self.ids([PROBE])[0]:
            raise UserError(f"{self.name}: the tokenizer finds no tokens in text; are its files complete?")

    @property
    def content(self) -> str:
        """Return everything that decides the ids of a text: vocabulary, merges, normalisation, special tokens."""
        if self._bare:
            backend = self._bare.to_str()
        else:
            backend = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        special = sorted(self.tokenizer.special_tokens_map.items())
        return f"{type(self.tokenizer).__name__} {tokenizers.__version__} {special} {backend}"

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, many texts at once."""
        if self._bare:
            return [encoding.ids for encoding in self._bare.encode_batch_fast(list(texts), add_special_tokens=False)]
        # Slow tokenizers refuse an empty list.
        if not texts:
            return []
        return list(map(list, self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]))

    def ids_and_offsets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """Return the ids and, for every id, the (start, end) characters that it covers."""
        if not self._bare:
            raise UserError(f"{self.name}: --train_on all needs a fast tokenizer; use --train_on last")
        encodings = self._bare.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings], [encoding.offsets for encoding in encodings]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def text_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Return what `ids` add to the text of `before`. (Alone, sentencepiece ids would lose the space they begin
        with.)"""
        return self.text([*before, *ids])[len(self.text(before)) :]

    def ids_after(self, before: Sequence[int], whole: Sequence[int], rest: str) -> list[int] | None:
        """Return ids that spell `rest` after `before`, where the ids of the `whole` text do not begin with `before`;
        None when no split spells the same text."""
        text = self.text(whole)
        # Some tokenizers write a space before every text: hence a character in front, whose ids are taken off again.
        for front in ("", "\n", "=", "a"):
            head, ids = self.ids([front, front + rest])
            if ids[: len(head)] == head and self.text([*before, *ids[len(head) :]]) == text:
                return ids[len(head) :]
        return None


def _bare(tokenizer: Any) -> tokenizers.Tokenizer | None:
    """Return a copy of a fast tokenizer that neither pads nor cuts, and whose offsets keep white space; None for
    others."""
    if not tokenizer.is_fast:
        return None
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for part in ("pre_tokenizer", "post_processor"):
        content[part] = _untrimmed(content[part])
    bare = tokenizers.Tokenizer.from_str(json.dumps({**content, "padding": None, "truncation": None}))
    # A class may do more in Python than its back end knows: then the copy would write other ids.
    if bare.encode(PROBE, add_special_tokens=False).ids != tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        return None
    return bare


def _untrimmed(part: Any) -> Any:
    """Return a part of a tokenizer's JSON with every `trim_offsets` off: trimmed offsets leave out white space."""
    if isinstance(part, list):
        return list(map(_untrimmed, part))
    if not isinstance(part, dict):
        return part
    untrimmed = {key: _untrimmed(value) for key, value in part.items()}
    if "trim_offsets" in part:
        untrimmed["trim_offsets"] = False
    return untrimmed
