"""Encoders (RoBERTa, DeBERTa) as reward models, with tokenizers trained here: they train, plain transformers and
chatbot.py give the same scores, and what they cannot do is refused."""

import json

import pytest
import torch
from small_tokenizers import byte_level
from stages import WORDS, metrics, run_stage, toy_data
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from inference import chatbot
from utils.model.batch import collate
from utils.model.loading import positions_of
from utils.model.reward_model import RewardModel
from utils.tokens.group import group

TEXT = [*WORDS[6:], *["Human: Assistant: " + " ".join(WORDS[6:])] * 10]
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)


def roberta_tokenizer():
    """Bytes, <s> in front of every text and </s> behind it."""
    tokenizer = byte_level(pad="<pad>", bos="<s>", trained_on=TEXT)
    ends = {word: (word, tokenizer.convert_tokens_to_ids(word)) for word in ("<s>", "</s>")}
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(ends["</s>"], ends["<s>"])
    return tokenizer


def deberta_tokenizer():
    """A unigram model, [CLS] and [SEP]."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="[UNK]", show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    pair = [("[CLS]", 1), ("[SEP]", 2)]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", bos_token="[CLS]", cls_token="[CLS]", eos_token="[SEP]",
        sep_token="[SEP]", unk_token="[UNK]",
    )  # fmt: skip


FAMILIES = {
    "roberta": (roberta_tokenizer, dict(max_position_embeddings=131, type_vocab_size=1)),
    "deberta-v2": (
        deberta_tokenizer,
        dict(
            max_position_embeddings=128, type_vocab_size=0, relative_attention=True, position_biased_input=False,
            pos_att_type=["p2c", "c2p"], pooler_hidden_size=32,
        ),
    ),
}  # fmt: skip


def encoder(folder, family):
    """A folder of a masked language model, with dropout as such folders have it."""
    make, sizes = FAMILIES[family]
    tokenizer = make()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, **SIZES, **sizes,
    )  # fmt: skip
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(tmp_path_factory.mktemp("data"))


FLAGS = ("--template", "human_assistant", "--max_prompt_seq_len", "64", "--max_answer_seq_len", "64")
MORE = ("--num_train_epochs", "8", "--eval_every", "epoch_8")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_trains_and_loads_in_plain_transformers(tmp_path, data, family):
    out = tmp_path / "out"
    run_stage("step2_reward", encoder(tmp_path / "model", family), data, out, *FLAGS, "--learning_rate", "3e-3", *MORE)
    rows = metrics(out)
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] - 0.05 and rows[-1]["eval/accuracy"] > 0.8
    config = json.loads((out / "config.json").read_text())
    assert "SequenceClassification" in config["architectures"][0]
    words = ["--mode", "rm", "--model_name_or_path", out, "--data_path", data / "test.jsonl", "--output_path"]
    chatbot.main(list(map(str, [*words, tmp_path / "scored.jsonl"])))
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
    texts, expected = [], []
    for row in scored:
        for answer in row["answers"]:
            turns = [*row["prompt"], {"role": "assistant", "content": answer["text"]}]
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False))
            expected += answer["scores"].values()
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    # in front the begin token, which the head reads, behind it all the end token
    begin, end = (torch.full((len(texts), 1), number) for number in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    assert (batch.input_ids[:, 0] == begin[:, 0]).all() and (batch.input_ids == end).any(dim=1).all()
    with torch.no_grad():
        scores = model.eval()(batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    assert scores.tolist() == pytest.approx(expected, abs=1e-4) and scores.std() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_does_not_depend_on_the_padding(tmp_path, family):
    folder = encoder(tmp_path / "model", family)
    scorer = RewardModel(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval())
    assert not scorer.packed
    groups = [group([1, 20, 21], [[22, 23], [24] * 40]), group([1, 10], [[11]])]
    together = scorer(collate(groups, packed=False))
    alone = torch.cat([scorer(collate([group(g.prompt, [a])], packed=False)) for g in groups for a in g.answers])
    assert together.shape == (3,) and torch.allclose(together, alone, atol=1e-5)


def test_what_an_encoder_cannot_do(tmp_path, data):
    folder = encoder(tmp_path / "model", "roberta")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    assert positions_of(model) == 131 - 2 - 1  # the padding token is the third
    for flags, said in (
        (("--loss", "token_wise"), "--loss token_wise reads a score at each token; an encoder has one"),
        (("--lora_dim", "4"), "is an encoder (roberta); train all its weights"),
    ):
        assert said in run_stage("step2_reward", folder, data, tmp_path / "no", *FLAGS, *flags, code=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 1}))
    assert "its tokenizer pads with token 2, its config.json says 1" in run_stage(
        "step2_reward", folder, data, tmp_path / "no", *FLAGS, code=2
    )
