"""Templates, token by token: what is read, what is trained, where the boundary lies, what is cut."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from utils.errors import UserError
from utils.groups import Group
from utils.records import Answer, Message, Record, RecordError, Verdict, comparison
from utils.templates import TEMPLATES, Limits, Renderer, Row, Tally, choose, coloured, fit

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
        trained_on, trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token=pad, bos_token=bos, chat_template=chat_template,
        extra_special_tokens=MARKERS,
    )  # fmt: skip


def llama(prefix="every", chat_template=None, trained_on=WORDS):
    """Sentencepiece's kind: writes <s> first, a space before every text (or the first alone), unknown bytes as <0x..>."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if prefix == "every":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for line in trained_on for word in line.split()]
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=250, special_tokens=["<unk>", "<s>", "</s>"]))
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


DIALOGUE = (Message("system", "Be kind."), Message("user", "hello"), Message("assistant", "yes."), Message("user", "why?"))
RECORD = Record(DIALOGUE, (Answer("because"), Answer("no, never")), (Verdict(0, 1, "a"),))

# Written by hand: what stands in ‹ › is trained with --train_on all; @ is the begin token of tokenizers that write one.
EXPECTED = {
    "human_assistant": "@\n\nSystem: Be kind.\n\nHuman: hello\n\nAssistant:‹ yes.</s>›\n\nHuman: why?\n\nAssistant:‹ because</s>›",
    "alpaca": "@Be kind.\n\n### Instruction:\nhello\n\n### Response:‹ yes.</s>›\n\n### Instruction:\nwhy?\n\n### Response:‹ because</s>›",
    "vicuna": "@Be kind. USER: hello ASSISTANT:‹ yes.</s>›USER: why? ASSISTANT:‹ because</s>›",
    "llama2": "@[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhello [/INST]‹ yes. </s>›@[INST] why? [/INST]‹ because </s>›",
    "mistral": "@[INST] Be kind.\n\nhello [/INST]‹ yes.</s>›[INST] why? [/INST]‹ because</s>›",
    "zephyr": "@<|system|>\nBe kind.</s>\n<|user|>\nhello</s>\n<|assistant|>\n‹yes.</s>›\n<|user|>\nwhy?</s>\n<|assistant|>\n‹because</s>›",
    "openassistant": "@<|system|>Be kind.</s><|prompter|>hello</s><|assistant|>‹yes.</s>›<|prompter|>why?</s><|assistant|>‹because</s>›",
    "tutor": "@\n\nSystem: Be kind.\n\nStudent: hello\n\nTutorbot:‹ yes.</s>›\n\nStudent: why?\n\nTutorbot:‹ because</s>›",
    "plain": "@Be kind.hello‹yes.</s>›why?‹because</s>›",
}  # fmt: skip

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (m.content | trim)"
    " + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
FOLDING = (
    "{{ bos_token }}{% set system = messages[0].content + '\\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (system if loop.index0 < 2 else '') + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
CHAT = {
    "chatml": (CHATML, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
               "‹yes.<|im_end|>›\n<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n‹because<|im_end|>›"),
    "llama3": (LLAMA3, "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user"
               "<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n‹yes.<|eot_id|>›"
               "<|start_header_id|>user<|end_header_id|>\n\nwhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
               "\n\n‹because<|eot_id|>›"),
    "folding": (FOLDING, "<s>[INST] Be kind.\nhello [/INST]‹ yes.</s>›[INST] why? [/INST]‹ because</s>›"),
}  # fmt: skip


def text_of(tokenizer, ids):
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def check_tokens(tokenizer, group, marked, count_spaces=True):
    """Every token: its text stands where `marked` has it, and it is trained just where `marked` says so."""
    ids = [*group.prompt, *group.answers[0]]
    trained = [*group.prompt_trained, *[True] * len(group.answers[0])]
    inside, expected = False, []
    for char in marked:
        if char in "‹›":
            inside = char == "‹"
        elif count_spaces or char != " ":
            expected.append((char, inside))
    found = []
    for n, token_trained in enumerate(trained):
        piece = text_of(tokenizer, ids[: n + 1])[len(text_of(tokenizer, ids[:n])) :]
        found += [(char, bool(token_trained)) for char in piece if count_spaces or char != " "]
    assert found == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_templates_token_by_token(name):
    marked = EXPECTED[name]
    tokenizer = byte_level()
    check_tokens(tokenizer, Renderer(tokenizer, name).group(RECORD, [0], train_on="all"), marked.replace("@", ""))
    tokenizer = llama("first")
    check_tokens(tokenizer, Renderer(tokenizer, name).group(RECORD, [0], train_on="all"), marked.replace("@", "<s>"))
    tokenizer = llama("every")  # its spaces after special tokens are its own
    group = Renderer(tokenizer, name).group(RECORD, [0], train_on="all")
    check_tokens(tokenizer, group, marked.replace("@", "<s>"), count_spaces=False)


@pytest.mark.parametrize("name", CHAT)
def test_chat_templates_token_by_token(name):
    jinja, marked = CHAT[name]
    tokenizer = byte_level(bos="<s>", chat_template=jinja)
    check_tokens(tokenizer, Renderer(tokenizer).group(RECORD, [0], train_on="all"), marked)


def test_alpaca_says_when_there_is_an_input():
    tokenizer = byte_level()
    renderer = Renderer(tokenizer, "alpaca")
    text = text_of(tokenizer, renderer.prompt_ids([Message("user", "Add.\n\n### Input:\n1 2")]))
    assert text.startswith("Below is an instruction that describes a task, paired with an input that provides further")
    assert text.endswith("completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:")
    text = text_of(tokenizer, renderer.prompt_ids([Message("user", "Add.")]))
    assert text == ("Below is an instruction that describes a task. Write a response that appropriately completes the "
                    "request.\n\n### Instruction:\nAdd.\n\n### Response:")  # fmt: skip


def every_renderer():
    for name in TEMPLATES:
        for tokenizer in (byte_level(), llama("first"), llama("every")):
            yield Renderer(tokenizer, name)
    for jinja, _ in CHAT.values():
        yield Renderer(byte_level(bos="<s>", chat_template=jinja))


def test_one_prompt_for_training_and_chat_one_stop_token_no_double_bos():
    for renderer in every_renderer():
        group = renderer.group(RECORD, [0, 1], [(0, 1)])
        assert group.prompt.tolist() == renderer.prompt_ids(DIALOGUE)
        assert group.pairs == ((0, 1),) and group.prompt_trained is None
        bos = renderer.tokenizer.bos_token_id
        if bos is not None:
            question = renderer.prompt_ids([Message("user", "hello")])
            assert question.count(bos) == (renderer.chat_template.find("bos_token") >= 0)
        for answer, text in zip(group.answers, ("because", "no, never"), strict=True):
            assert answer.tolist() == renderer.answer_ids(DIALOGUE, text)
            assert answer[-1] == renderer.stop_token_ids[0]
            assert not set(answer[:-1].tolist()) & set(renderer.stop_token_ids)
            assert renderer.decode_answer(answer) == text
            cut = renderer.answer_ids(DIALOGUE, text, finished=False)
            assert not set(cut) & set(renderer.stop_token_ids)
            assert renderer.decode_answer(cut) == text


def test_the_stop_token_is_the_templates_and_the_tokenizers_ends_too():
    tokenizer = byte_level(chat_template=CHATML)
    renderer = Renderer(tokenizer)
    assert renderer.stop_token_ids == tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert Renderer(tokenizer, "zephyr").stop_token_ids == [tokenizer.eos_token_id]


def test_a_template_without_an_end_token_gets_one():
    tokenizer = byte_level(chat_template="{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
                                         "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}")  # fmt: skip
    answer = Renderer(tokenizer).answer_ids([Message("user", "hello")], "yes")
    assert text_of(tokenizer, answer) == " yes</s>"


def test_stop_strings_cut_and_survive_saving(tmp_path):
    tokenizer = byte_level()
    renderer = Renderer(tokenizer, "human_assistant")
    assert renderer.decode_answer(renderer.encoder.ids([" yes\n\nHuman: why"])[0]) == "yes"
    tokenizer.chat_template = renderer.chat_template
    tokenizer.save_pretrained(tmp_path)
    again = Renderer(PreTrainedTokenizerFast.from_pretrained(tmp_path))
    assert again.stop_strings == ["\n\nHuman:"]
    assert again.prompt_ids(DIALOGUE) == renderer.prompt_ids(DIALOGUE)


@pytest.mark.parametrize("tokenizer", [byte_level(), llama("first"), llama("every")], ids=["bytes", "first", "every"])
def test_an_answer_that_merges_with_its_prompt_is_split_at_the_boundary(tokenizer):
    renderer = Renderer(tokenizer, "plain")
    record = Record((Message("user", "hello the"),), (Answer("re"), Answer(" there")))
    whole = renderer.encoder.ids([renderer.render(record, [0]).prompt + "re"])[0]
    assert whole[: len(renderer.prompt_ids(record.prompt))] != renderer.prompt_ids(record.prompt)  # "there" is one token
    (group,), (apart,) = renderer.encode([renderer.render(record, [0, 1])])
    assert apart == 1
    assert group.prompt.tolist() == renderer.prompt_ids(record.prompt)
    begin = "<s> " if tokenizer.bos_token and tokenizer.backend_tokenizer.normalizer else tokenizer.bos_token or ""
    assert text_of(tokenizer, [*group.prompt, *group.answers[0]]) == begin + "hello there</s>"
    assert renderer.decode_answer(group.answers[0]) == "re"


def test_a_token_across_the_edge_of_an_earlier_answer_is_not_trained():
    tokenizer = byte_level()
    renderer = Renderer(tokenizer, "plain")
    dialogue = (Message("user", "hello the"), Message("assistant", "re yes"), Message("user", " why"))
    group = renderer.group(Record(dialogue, (Answer("because"),)), [0], train_on="all")
    pieces = [text_of(tokenizer, [i]) for i in group.prompt]
    assert pieces == ["hello", " there", " yes", "</s>", " why"]
    assert group.prompt_trained.tolist() == [False, False, True, True, False]


def test_a_template_that_rewrites_history_is_refused():
    rewrites = "{% for m in messages %}{{ m.role if loop.last else 'x' }}{{ m.content }}{% endfor %}{{ '' if not add_generation_prompt else 'assistant' }}"
    with pytest.raises(UserError, match="chat template of .*does not begin with the question"):
        Renderer(byte_level(chat_template=rewrites))
    forgets = (  # thinks aloud in the last answer only
        "{% for m in messages %}{{ m.role + ':' + ('(thinks)' if loop.last and m.role == 'assistant' else '')"
        " + m.content + eos_token }}{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
    )
    renderer = Renderer(byte_level(chat_template=forgets))
    group = renderer.group(RECORD, [0])
    assert text_of(renderer.tokenizer, group.answers[0]) == "(thinks)because</s>"
    with pytest.raises(RecordError, match="rewrites earlier answers; use --train_on last"):
        renderer.group(RECORD, [0], train_on="all")


def test_a_template_may_refuse_a_conversation():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    with pytest.raises(RecordError, match="rows.jsonl:7: the chat template of .*no system"):
        Renderer(byte_level(chat_template=refuses)).group(Record(DIALOGUE, (Answer("x"),), where="rows.jsonl:7"), [0])


def test_wrong_templates_and_tokenizers_are_one_line():
    with pytest.raises(UserError, match="--template human: no such template; did you mean human_assistant\\? known: .*plain"):
        Renderer(byte_level(), "human")
    with pytest.raises(UserError, match="has no chat template; give --template, one of human_assistant"):
        Renderer(byte_level())
    endless = byte_level(pad="<pad>")
    endless.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        Renderer(endless, "plain")


def test_an_end_token_written_in_an_answer():
    renderer = Renderer(byte_level(), "vicuna")
    assert renderer.answer_ids(DIALOGUE, "yes</s>") == renderer.answer_ids(DIALOGUE, "yes")
    with pytest.raises(RecordError, match="an answer contains '</s>'"):
        renderer.answer_ids(DIALOGUE, "yes</s> why")


def test_fingerprint_follows_content():
    one = Renderer(byte_level(), "vicuna").fingerprint
    assert Renderer(byte_level(), "vicuna").fingerprint == one
    padded = byte_level()
    padded(["hello", "hello there"], padding=True)  # leaves a setting in the back end
    assert Renderer(padded, "vicuna").fingerprint == one
    others = [Renderer(byte_level(), "zephyr"), Renderer(llama(), "vicuna"), Renderer(byte_level(bos="<s>"), "vicuna"),
              Renderer(byte_level(trained_on=WORDS[:1] * 5), "vicuna")]  # fmt: skip
    assert len({one, *(renderer.fingerprint for renderer in others)}) == 5


# --- cutting ---

LONG = Record(
    (Message("system", "Be kind."), *[Message(role, f"{role} {n}") for n in range(3) for role in ("user", "assistant")],
     Message("user", "why?")),
    (Answer("because yes because yes"), Answer("yes")), (Verdict(0, 1, "a"),),
)  # fmt: skip


def cut(limits, record=LONG, name="human_assistant", tokenizer=None, train_on="last", answers=(0, 1), pairs=((0, 1),)):
    renderer = Renderer(tokenizer or llama("first"), name)
    row, tally = Row(record, answers, pairs, train_on), Tally()
    whole = renderer.group(*row)
    return renderer, whole, fit(renderer, row, whole, limits, tally), dict(tally.counts)


def test_what_fits_is_left_alone():
    _, whole, group, counts = cut(Limits(500, 500, 1000, "keep_end"))
    assert group.prompt.tolist() == whole.prompt.tolist() and counts == {}
    assert [a.tolist() for a in group.answers] == [a.tolist() for a in whole.answers]


def test_keep_end_keeps_the_begin_token():
    renderer, whole, group, counts = cut(Limits(60, 500, 1000, "keep_end"), train_on="all")
    assert group.prompt.tolist() == [renderer.tokenizer.bos_token_id, *whole.prompt[-59:].tolist()]
    assert group.prompt_trained.tolist() == [False, *whole.prompt_trained[-59:].tolist()]
    assert counts == {"prompts cut at their start": 1}


def test_keep_start_keeps_the_words_that_open_the_answer():
    renderer, whole, group, counts = cut(Limits(60, 500, 1000, "keep_start"))
    header = renderer.encoder.ids(["\n\nAssistant:"])[0][-renderer.header :]
    assert len(group.prompt) == 60 and group.prompt[-len(header) + 1 :].tolist() == header[1:]
    assert group.prompt[: 60 - renderer.header].tolist() == whole.prompt[: 60 - renderer.header].tolist()
    assert counts == {"prompts cut at their end": 1}


def test_drop_turns_drops_the_oldest_exchange_and_keeps_the_system_message():
    renderer, whole, _, _ = cut(Limits(500, 500, 1000, "drop_turns"))
    _, _, group, counts = cut(Limits(len(whole.prompt) - 1, 500, 1000, "drop_turns"))
    expected = renderer.prompt_ids([LONG.prompt[0], *LONG.prompt[3:]])
    assert group.prompt.tolist() == expected and counts == {"prompts that lost their oldest turns": 1}
    last = renderer.prompt_ids([LONG.prompt[0], LONG.prompt[-1]])
    _, _, group, _ = cut(Limits(len(last), 500, 1000, "drop_turns"))
    assert group.prompt.tolist() == last
    _, _, group, counts = cut(Limits(len(last) - 1, 500, 1000, "drop_turns"))  # then the start goes, <s> aside
    assert group.prompt.tolist() == [last[0], *last[2:]] and len(counts) == 2


def test_drop_drops():
    _, _, group, counts = cut(Limits(60, 500, 1000, "drop"))
    assert group is None and counts == {"records dropped: prompt too long": 1}


def test_a_cut_answer_has_no_stop_token():
    renderer, whole, group, counts = cut(Limits(500, 3, 1000, "keep_end"))
    assert group.answers[0].tolist() == whole.answers[0][:3].tolist()
    assert renderer.tokenizer.eos_token_id not in group.answers[0]
    assert group.answers[1].tolist() == whole.answers[1].tolist() and group.answers[1][-1] == renderer.tokenizer.eos_token_id
    assert counts == {"answers cut at their end": 1}


def test_together_the_prompt_gives_way_then_the_answers():
    renderer, whole, group, _ = cut(Limits(500, 500, 80, "keep_end"))
    assert len(group.prompt) == 80 - len(whole.answers[0]) and len(group.answers[0]) == len(whole.answers[0])
    record = Record((Message("user", "a " * 50),), (Answer("b " * 50),))
    _, _, group, _ = cut(Limits(500, 500, 61, "keep_end"), record, answers=(0,), pairs=())
    assert (len(group.prompt), len(group.answers[0])) == (30, 31)


def test_pairs_that_become_equal_are_dropped():
    record = comparison((Message("user", "why?"),), "because yes", "because no")
    assert cut(Limits(500, 500, 1000, "keep_end"), record)[2] is not None
    _, _, group, counts = cut(Limits(500, 1, 1000, "keep_end"), record)
    assert group is None and counts["pairs dropped: both answers are the same tokens"] == 1


def test_a_limit_below_the_templates_own_words_is_an_error():
    with pytest.raises(UserError, match="has to fit in 5, and the words around it take 1\\d; raise --max_prompt_seq_len"):
        cut(Limits(5, 500, 1000, "keep_end"))


# --- choosing and showing ---


def test_choose_takes_the_preferred_answer():
    ask = (Message("user", "why?"),)
    ranked = Record(ask, (Answer("c"), Answer("b"), Answer("a")), (Verdict(1, 0, "a"), Verdict(2, 1, "a"), Verdict(0, 2, "tie")))
    tally = Tally()
    assert choose(ranked, "demonstrations", tally).answers == (2,)
    assert choose(ranked, "comparisons", tally)[1:3] == ((0, 1, 2), ((1, 0), (2, 1)))
    assert choose(ranked, "prompts", tally)[1:3] == ((), ())
    assert choose(Record(ask, (Answer(" "), Answer("a", finished=False))), "demonstrations", tally, "all") == (
        Record(ask, (Answer(" "), Answer("a", finished=False))), (1,), (), "all")  # fmt: skip
    assert tally.counts == {"empty answers left out": 1}
    assert choose(comparison(ask, "", "b"), "demonstrations", tally) is None
    assert choose(comparison(ask, "", "b"), "comparisons", tally) is None
    assert choose(Record(ask, (Answer("a"), Answer("b"))), "comparisons", tally) is None


def test_comparisons_of_some_answers_are_counted_anew():
    record = Record((Message("user", "why?"),), (Answer("x"), Answer("yes"), Answer("because")), (Verdict(1, 2, "b"),))
    row = choose(record, "comparisons", Tally())
    group = Renderer(byte_level(), "vicuna").group(*row)
    assert row.answers == (1, 2) and group.pairs == ((1, 0),)


def test_coloured_shows_what_is_trained():
    tokenizer = byte_level()
    text = coloured(tokenizer, Renderer(tokenizer, "vicuna").group(RECORD, [0, 1], [(0, 1)], train_on="all"))
    assert [text.plain[s.start : s.end] for s in text.spans if s.style == "green"] == [" yes.</s>", " because</s>", " no, never</s>"]
    assert "answer 1 (preferred):" in text.plain and "answer 2 (rejected):" in text.plain
    long = Group(np.full(1000, tokenizer.convert_tokens_to_ids("a"), np.int32), ())
    assert "700 tokens" in coloured(tokenizer, long).plain


# --- against TRL ---


def test_same_tokens_as_trl(tmp_path):
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    tokenizer = byte_level(pad="<pad>", bos="<s>", chat_template=CHATML)
    renderer = Renderer(tokenizer)
    group = renderer.group(RECORD, [0, 1], [(0, 1)])
    after = renderer.encoder.ids(["\n"])[0]  # TRL also trains what the template writes after the end token
    prompt = [{"role": m.role, "content": m.content} for m in DIALOGUE]
    said = [[{"role": "assistant", "content": answer.text}] for answer in RECORD.answers]
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                         num_hidden_layers=1, num_attention_heads=1))  # fmt: skip
    common = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "bf16": False}
    sft = SFTTrainer(model, SFTConfig(**common), processing_class=tokenizer,
                     train_dataset=Dataset.from_list([{"prompt": prompt, "completion": said[0]}]))  # fmt: skip
    row = sft.train_dataset[0]
    assert row["input_ids"] == [*group.prompt, *group.answers[0], *after]
    trained = row["labels"] if "labels" in row else [i if m else -100 for i, m in zip(row["input_ids"], row["completion_mask"], strict=True)]
    assert trained == [-100] * len(group.prompt) + [*group.answers[0], *after]
    dpo = DPOTrainer(model, ref_model=LlamaForCausalLM(model.config), args=DPOConfig(**common), processing_class=tokenizer,
                     train_dataset=Dataset.from_list([{"prompt": prompt, "chosen": said[0], "rejected": said[1]}]))  # fmt: skip
    row = dpo.train_dataset[0]
    assert row["prompt_ids"] == group.prompt.tolist()
    assert [row["chosen_ids"], row["rejected_ids"]] == [[*answer, *after] for answer in group.answers]
