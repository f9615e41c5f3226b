"""A tokenizer and the config of a small Llama, made from nothing: what a model trained from random weights needs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from utils.errors import UserError, write_failure
from utils.hub import offline_unless_reachable
from utils.provenance import move

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"  # ids 0 to 3
# what make_model_folder writes
MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
PUNCTUATION = (".", ",", "?", "!")  # one token each: sentencepiece would merge a number with its full stop
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_model_folder(texts: Iterable[str], folder: Path, vocab_size: int, **sizes: int) -> int:
    """Write a tokenizer trained on `texts` and a config.json, without weights; AutoTokenizer and AutoConfig load them.

    Args:
        texts: what the tokenizer is trained on.
        folder: where to write; other files in it stay.
        vocab_size: the most tokens; few texts give fewer.
        sizes: those of `llama_config`.

    Returns:
        The size of the vocabulary.

    Raises:
        UserError: the texts or sizes do not do, or the folder cannot be written.
    """
    texts = list(texts)
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        size = _write_tokenizer(texts, partial, vocab_size)
        _write_json(partial / "config.json", llama_config(size, **sizes))
        _write_json(partial / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3})
        folder.mkdir(parents=True, exist_ok=True)
        for path in partial.iterdir():
            move(path, folder / path.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return size


def llama_config(
    vocab_size: int,
    hidden_size: int = 256,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
    max_position_embeddings: int = 512,
) -> dict[str, Any]:
    """Return config.json of a Llama with tied embeddings.

    Args:
        vocab_size: rows of the embedding.
        hidden_size: numbers of a hidden state.
        num_hidden_layers: layers.
        num_attention_heads: heads of a layer, all with keys of their own.
        max_position_embeddings: the longest row, in tokens.

    Raises:
        UserError: the hidden size does not divide into heads.
    """
    if hidden_size % (2 * num_attention_heads):
        raise UserError(
            f"--hidden_size {hidden_size} does not divide into {num_attention_heads} heads of an even width; "
            f"expected a multiple of {2 * num_attention_heads}"
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        # 8/3 of the hidden size, as in Llama, rounded up to a multiple of 32, with which kernels are faster
        "intermediate_size": -(-hidden_size * 8 // 3 // 32) * 32,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_attention_heads,
        "max_position_embeddings": max_position_embeddings,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        "dtype": "float32",
    }


def _write_tokenizer(texts: list[str], folder: Path, vocab_size: int) -> int:
    from transformers import AutoTokenizer

    (folder / "tokenizer.model").write_bytes(_sentencepiece(texts, vocab_size))
    # The class must be named here: LlamaTokenizer(vocab_file=...) of transformers 5 returns no ids.
    tokenizer_config = {
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "extra_special_tokens": list(ROLES),
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "chat_template": CHAT_TEMPLATE,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # as everyone will load it
    # 200 texts take a moment; a setting that changes texts changes most of them
    for text in texts[:200]:
        ids = tokenizer(text)["input_ids"]
        if len(ids) < 2 or tokenizer.decode(ids, skip_special_tokens=True) != text:
            raise UserError(
                f"{folder}: the new tokenizer does not give back {text[:60]!r}; the text is not valid UTF-8"
            )
    return len(tokenizer)


def _sentencepiece(texts: list[str], vocab_size: int) -> bytes:
    """Return a BPE model with byte fallback. Nothing is normalised and no space is put in front, so that every text
    round-trips and a turn is read as the same tokens in every place."""
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise UserError("there is no text to train a tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            user_defined_symbols=[*ROLES, *PUNCTUATION],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            max_sentence_length=1 << 20,  # longer ones are skipped
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"--vocab_size {vocab_size}: {str(error).splitlines()[-1]}") from error
    return model.getvalue()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def token_counter(name: str) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, special ones aside, by the tokenizer of a folder or a name on
    the hub. Needs no torch. Raises UserError."""
    from transformers import AutoTokenizer

    if not Path(name).is_dir():
        offline_unless_reachable()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"--tokenizer_name_or_path {name}: cannot be loaded: {first}") from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
