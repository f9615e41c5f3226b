"""Templates, token by token: what is read, what is trained, where the boundary lies."""

import pytest
from small_tokenizers import DIALOGUE, RECORD, WORDS, byte_level, llama, text_of
from transformers import PreTrainedTokenizerFast

from utils.errors import UserError
from utils.records import Answer, Message, Record, RecordError
from utils.tokens.templates import TEMPLATES, Renderer

# Written by hand: what stands in ‹ › is trained with --train_on all; @ is the begin token of tokenizers that write one.
EXPECTED = {
    "human_assistant": "@\n\nSystem: Be kind.\n\nHuman: hello\n\nAssistant:‹ yes.</s>›"
                       "\n\nHuman: why?\n\nAssistant:‹ because</s>›",
    "alpaca": "@Be kind.\n\n### Instruction:\nhello\n\n### Response:‹ yes.</s>›"
              "\n\n### Instruction:\nwhy?\n\n### Response:‹ because</s>›",
    "vicuna": "@Be kind. USER: hello ASSISTANT:‹ yes.</s>›USER: why? ASSISTANT:‹ because</s>›",
    "llama2": "@[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhello [/INST]‹ yes. </s>›@[INST] why? [/INST]‹ because </s>›",
    "mistral": "@[INST] Be kind.\n\nhello [/INST]‹ yes.</s>›[INST] why? [/INST]‹ because</s>›",
    "zephyr": "@<|system|>\nBe kind.</s>\n<|user|>\nhello</s>\n<|assistant|>\n‹yes.</s>›"
              "\n<|user|>\nwhy?</s>\n<|assistant|>\n‹because</s>›",
    "openassistant": "@<|system|>Be kind.</s><|prompter|>hello</s><|assistant|>‹yes.</s>›"
                     "<|prompter|>why?</s><|assistant|>‹because</s>›",
    "tutor": "@\n\nSystem: Be kind.\n\nStudent: hello\n\nTutorbot:‹ yes.</s>›"
             "\n\nStudent: why?\n\nTutorbot:‹ because</s>›",
    "plain": "@Be kind.hello‹yes.</s>›why?‹because</s>›",
}  # fmt: skip

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n'"
    " + (m.content | trim) + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
FOLDING = (
    "{{ bos_token }}{% set system = messages[0].content + '\\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + (system if loop.index0 < 2 else '') + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
CHAT = {
    "chatml": (CHATML, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
               "<|im_start|>assistant\n‹yes.<|im_end|>›\n<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n‹because<|im_end|>›"),
    "llama3": (LLAMA3, "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user"
               "<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n‹yes.<|eot_id|>›"
               "<|start_header_id|>user<|end_header_id|>\n\nwhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
               "\n\n‹because<|eot_id|>›"),
    "folding": (FOLDING, "<s>[INST] Be kind.\nhello [/INST]‹ yes.</s>›[INST] why? [/INST]‹ because</s>›"),
}  # fmt: skip


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
    assert whole[: len(renderer.prompt_ids(record.prompt))] != renderer.prompt_ids(
        record.prompt
    )  # "there" is one token
    (group,), (apart,) = renderer.encode([renderer.render(record, [0, 1])])
    assert apart == 1
    assert group.prompt.tolist() == renderer.prompt_ids(record.prompt)
    begin = "<s> " if tokenizer.bos_token and tokenizer.backend_tokenizer.normalizer else tokenizer.bos_token or ""
    assert text_of(tokenizer, [*group.prompt, *group.answers[0]]) == begin + "hello there</s>"
    assert renderer.decode_answer(group.answers[0]) == "re"


GLUED = "{% for m in messages %}{{ m.content }}{% endfor %}"  # no end token between the turns


@pytest.mark.parametrize(
    ("said", "pieces", "trained"),
    [
        (("hello the", "re yes", " why"), ["hello", " there", " yes", " why"], [0, 0, 1, 0]),
        (("hello ", "there yes", " why"), ["hello", " there", " yes", " why"], [0, 0, 1, 0]),  # a space alone straddles
        (("hello", " yes the", "re why"), ["hello", " yes", " there", " why"], [0, 1, 0, 0]),
    ],
)
def test_a_token_across_the_edge_of_an_earlier_answer_is_not_trained(said, pieces, trained):
    tokenizer = byte_level(chat_template=GLUED)
    dialogue = [Message(role, text) for role, text in zip(("user", "assistant", "user"), said, strict=True)]
    group = Renderer(tokenizer).group(Record(tuple(dialogue), (Answer(" because"),)), [0], train_on="all")
    assert [text_of(tokenizer, [i]) for i in group.prompt] == pieces
    assert group.prompt_trained.tolist() == trained


def test_a_begin_token_only_where_the_tokenizer_writes_one():
    named = byte_level(bos="<s>")  # it has one, and begins no text with it
    assert named.bos_token_id not in Renderer(named, "llama2").prompt_ids(DIALOGUE)


def test_a_template_that_rewrites_history_is_refused():
    rewrites = (  # the last message alone says its role
        "{% for m in messages %}{{ m.role if loop.last else 'x' }}{{ m.content }}{% endfor %}"
        "{{ 'assistant' if add_generation_prompt }}"
    )
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
    with pytest.raises(
        UserError, match="--template human: no such template; did you mean human_assistant\\? known: .*plain"
    ):
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
    trained = (
        row["labels"]
        if "labels" in row
        else [i if m else -100 for i, m in zip(row["input_ids"], row["completion_mask"], strict=True)]
    )
    assert trained == [-100] * len(group.prompt) + [*group.answers[0], *after]
    rows = Dataset.from_list([{"prompt": prompt, "chosen": said[0], "rejected": said[1]}])
    reference = LlamaForCausalLM(model.config)
    dpo = DPOTrainer(model, reference, DPOConfig(**common), processing_class=tokenizer, train_dataset=rows)
    row = dpo.train_dataset[0]
    assert row["prompt_ids"] == group.prompt.tolist()
    assert [row["chosen_ids"], row["rejected_ids"]] == [[*answer, *after] for answer in group.answers]
