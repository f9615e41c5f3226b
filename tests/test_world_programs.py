"""The programs of the built-in world: what they write, the same from the same seed, and what they refuse."""

import itertools
import json
import random
from dataclasses import replace

import pytest
import sentencepiece
from world_examples import GOOD

from data_collect import make_world, train_tokenizer
from inference import evaluate_world, rerank
from utils.errors import UserError
from utils.records import Answer, Message, Record
from utils.records.files import read_records, write_jsonl
from utils.world.exchanges import read_prompt
from utils.world.oracle import accuracy_ceiling, assess, preference_probability
from utils.world.teachers import strong, weak

SIZES = ["--num_demonstrations=1500", "--num_prompts=60", "--num_pairs=200", "--num_test=40"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutor") / "world"
    make_world.main([f"--output_dir={folder}", *SIZES])
    return folder


def test_splits_are_disjoint(world):
    files = sorted(world.glob("*/*.jsonl"))
    assert [f"{f.parent.name}/{f.name}" for f in files] == [
        f"{kind}/{split}.jsonl" for kind in ("pairs", "prompts", "sft") for split in ("test", "train")
    ]
    prompts = [record.prompt for file in files for record in read_records(file)]
    assert len(prompts) == 1500 + 60 + 200 + 3 * 40
    assert len(set(prompts)) == len(prompts)


def test_pairs_compare_every_two_of_four_answers_by_either_teacher(world):
    summary = json.loads((world / "world.json").read_text())
    train, test = (list(read_records(world / "pairs" / f"{split}.jsonl")) for split in ("train", "test"))
    for place in range(4):
        assert 75 < sum(record.answers[place].model == "strong" for record in train) < 125  # half of 200
    decided, mixed, agreed = [], [], 0  # P(a) of the verdicts that are no ties; of those between the two teachers
    for record in train + test:
        assert [(v.a, v.b) for v in record.verdicts] == list(itertools.combinations(range(4), 2))
        exchange = read_prompt(record.prompt)
        seen = [assess(exchange, answer.text) for answer in record.answers]
        for v in record.verdicts:
            assert v.judge == "oracle" and (v.preferred == "tie") == (seen[v.a].rating == seen[v.b].rating)
            if v.preferred != "tie":
                p = preference_probability(seen[v.a].utility, seen[v.b].utility, summary["noise_temperature"])
                decided.append(p)
                agreed += v.preferred == ("a" if p > 0.5 else "b")
                if record.answers[v.a].model != record.answers[v.b].model:
                    mixed.append(p)
    assert summary["pairs_ceiling"] == pytest.approx(accuracy_ceiling(decided))
    assert summary["pairs_ceiling"] > 0.9 and accuracy_ceiling(mixed) > 0.95
    assert agreed / len(decided) == pytest.approx(summary["pairs_ceiling"], abs=0.03)


def test_the_same_seed_writes_the_same_bytes(world, tmp_path):
    make_world.main(
        [
            f"--output_dir={tmp_path}",
            *SIZES,
        ]
    )
    for file in world.rglob("*.json*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(world)).read_bytes(), file


def test_tokenizer_gives_ids_and_round_trips(world):
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world / "model")
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}) == 4
    pieces = sentencepiece.SentencePieceProcessor(str(world / "model" / "tokenizer.model"))
    assert pieces.encode(GOOD) == tokenizer(GOOD, add_special_tokens=False)["input_ids"]  # one tokenizer, two files
    for text in (GOOD, "naïve  café 🙂\n\n1234 ", " a space first"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and len(ids) > 3
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("It is 11.", add_special_tokens=False)["input_ids"])[-2:] == [
        "▁11",
        ".",
    ]
    chat = [{"role": "user", "content": "Is it 11?"}, {"role": "assistant", "content": "Yes."}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<s><|user|>Is it 11?</s><|assistant|>Yes.</s>"
    opened = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert opened == "<s><|user|>Is it 11?</s><|assistant|>"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(opened, add_special_tokens=False)["input_ids"])
    assert tokens[:2] == ["<s>", "<|user|>"] and tokens[-2:] == ["</s>", "<|assistant|>"]
    config = AutoConfig.from_pretrained(world / "model")
    assert config.vocab_size == len(tokenizer) and config.pad_token_id == tokenizer.pad_token_id


def test_train_tokenizer_reads_text_and_rows(world, tmp_path):
    (tmp_path / "rows.txt").write_text('{"id": "no text", "prompt": "Human: hello", "answers": [{"text": "bye"}]}\n')
    assert train_tokenizer.read_texts(str(tmp_path / "rows.txt")) == ["Human: hello", "bye"]
    (tmp_path / "plain.txt").write_text("one line\n\nanother line\n")
    assert train_tokenizer.read_texts(str(tmp_path / "plain.txt")) == ["one line", "another line"]
    flags = f"--output_dir {tmp_path / 'm'} --vocab_size 400 --hidden_size 64 --num_attention_heads 2"
    train_tokenizer.main(
        ["--data_path", str(world / "sft" / "test.jsonl"), str(tmp_path / "plain.txt"), *flags.split()]
    )
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["vocab_size"], config["hidden_size"]) == (400, 64)
    with pytest.raises(UserError, match="--vocab_size 10"):
        train_tokenizer.main(["--data_path", str(tmp_path / "plain.txt"), *flags.replace("400", "10").split()])
    with pytest.raises(UserError, match="--hidden_size 64"):
        train_tokenizer.main(["--data_path", str(tmp_path / "plain.txt"), *flags.replace("heads 2", "heads 3").split()])
    with pytest.raises(UserError, match="nowhere.txt"):
        train_tokenizer.main(["--data_path", str(tmp_path / "nowhere.txt"), *flags.split()])


@pytest.fixture
def sampled(world, tmp_path):
    """Records as the sampler writes them: four answers each, one cut, two alike."""
    rows = []
    for number, record in enumerate(read_records(world / "prompts" / "test.jsonl")):
        rng, exchange = random.Random(number), read_prompt(record.prompt)
        good, poor = strong(exchange, rng), weak(exchange, rng)
        answers = (
            Answer(good),
            Answer(poor, scores={"proxy": 1.0}),
            Answer(good),
            Answer(good.removesuffix("?"), finished=False),
        )
        rows.append(Record(record.prompt, answers, id=record.id))
    write_jsonl(tmp_path / "sampled.jsonl", rows)
    return tmp_path / "sampled.jsonl"


def test_evaluate_world(sampled, tmp_path):
    results = tmp_path / "results.json"
    results.write_text('{"rm": 1, "true_reward": {"old": {"n": 1}}}')
    evaluate_world.main(["--answers", f"a={sampled}", f"b={sampled}", f"--results={results}", "--overwrite"])
    found = json.loads(results.read_text())
    assert found["rm"] == 1 and set(found["true_reward"]) == {"old", "a", "b"}
    row = found["true_reward"]["a"]
    truth = [
        assess(read_prompt(record.prompt), answer.text, answer.finished).utility
        for record in read_records(sampled)
        for answer in record.answers
    ]
    assert row["reward"]["value"] == pytest.approx(sum(truth) / 160) and row["reward"]["n"] == 40
    assert row["reward"]["low"] < row["reward"]["value"] < row["reward"]["high"]
    assert row["finished"]["value"] == 0.75 and sum(s["n"] for s in row["states"].values()) == 40
    evaluate_world.main(["--answers", f"a={sampled}", f"--results={tmp_path / 'new' / 'results.json'}"])
    assert json.loads((tmp_path / "new" / "results.json").read_text())["true_reward"]["a"] == row


def test_true_reward_of_the_best_of_n(sampled, tmp_path):
    """By the longest text: of all four answers the one that rerank keeps, of one the mean; nothing without scores."""
    rows = []
    for record in read_records(sampled):
        scored = [replace(a, scores={"length": len(a.text), "perplexity": 1.0}) for a in record.answers]
        rows.append(replace(record, answers=tuple(scored)))
    write_jsonl(tmp_path / "scored.jsonl", rows)
    rerank.main(["--data_path", str(tmp_path / "scored.jsonl"), "--n=4", f"--output_path={tmp_path / 'best.jsonl'}"])
    names = [f"{name}={tmp_path / name}.jsonl" for name in ("scored", "best", "sampled")]
    evaluate_world.main(["--answers", *names, f"--results={tmp_path / 'r.json'}"])
    found = json.loads((tmp_path / "r.json").read_text())["true_reward"]
    curve = found["scored"].pop("best_of")
    assert curve["scorer"] == "length" and list(curve["reward"]) == ["1", "2", "4"]
    assert curve["reward"]["4"] == found["best"]["reward"]
    assert curve["reward"]["1"] == pytest.approx(found["scored"]["reward"])
    assert {**found["scored"], "file": ""} == {**found["sampled"], "file": ""} and "best_of" not in found["best"]


def test_bad_input_is_one_clear_line(world, sampled, tmp_path):
    prompts = world / "prompts" / "test.jsonl"
    with pytest.raises(UserError, match=r"test\.jsonl:1: no answers"):
        evaluate_world.main(["--answers", f"a={prompts}", f"--results={tmp_path / 'r.json'}"])
    with pytest.raises(UserError, match="expected NAME=FILE"):
        evaluate_world.main(["--answers", str(sampled)])
    write_jsonl(tmp_path / "other.jsonl", [Record((Message("user", "Write a poem."),), (Answer("Roses."),))])
    with pytest.raises(UserError, match=r"other\.jsonl:1: the prompt names no problem"):
        evaluate_world.main(["--answers", f"a={tmp_path / 'other.jsonl'}", f"--results={tmp_path / 'r.json'}"])
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(UserError, match=r"r\.json: not JSON"):
        evaluate_world.main(["--answers", f"a={sampled}", f"--results={tmp_path / 'r.json'}", "--overwrite"])
    with pytest.raises(UserError, match="--num_pairs is 0"):
        make_world.main(["--num_pairs=0"])
    with pytest.raises(UserError, match="--noise_temperature is -1"):
        make_world.main(["--noise_temperature=-1"])
