"""Two kinds of tokenizer, trained on a line of text, and a dialogue to put through them."""

import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from utils.records import Answer, Message, Record, Verdict

WORDS = ["hello there Human Assistant yes because Be kind why", "USER ASSISTANT: tell me a thing.\n\nHuman: hello"] * 20
MARKERS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def byte_level(pad="</s>", bos=None, chat_template=None, trained_on=WORDS):
    """GPT-2's kind: no begin token by itself, pad equals eos, offsets that leave out white space."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    special = ["</s>", "<s>", "<pad>", *MARKERS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        trained_on,
        trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=special, initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token=pad, bos_token=bos, chat_template=chat_template,
        extra_special_tokens=MARKERS,
    )  # fmt: skip


def llama(prefix="every", chat_template=None, trained_on=WORDS):
    """Sentencepiece's kind: writes <s> first, a space before every text (or the first alone), bytes as <0x..>."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if prefix == "every":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for line in trained_on for word in line.split()]
    backend.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=250, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"])
    )
    content = json.loads(backend.to_str())
    vocab = content["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    backend = Tokenizer.from_str(json.dumps(content))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>",
        chat_template=chat_template,
    )  # fmt: skip


DIALOGUE = (
    Message("system", "Be kind."),
    Message("user", "hello"),
    Message("assistant", "yes."),
    Message("user", "why?"),
)
RECORD = Record(DIALOGUE, (Answer("because"), Answer("no, never")), (Verdict(0, 1, "a"),))


def text_of(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
