"""The built-in world: what the oracle rewards, how noise acts, and what the programs write."""

import itertools
import json
import random

import pytest
import sentencepiece

from data_collect import label_world, make_world, train_tokenizer
from inference import evaluate_world
from utils.errors import UserError
from utils.records import Answer, Message, Record, read_records, write_jsonl
from utils.world import language
from utils.world.exchanges import PROBLEMS, Exchange, Turn, draw_exchange, mentions, read_prompt, write_prompt
from utils.world.oracle import accuracy_ceiling, assess, prefer, preference_probability
from utils.world.tasks import TASKS, coded_turn, critique, refine, task_prompt
from utils.world.teachers import TEACHERS, phrases, strong, weak

WRONG = (Turn("user", "What is 4 + 3? I think it is 6."),)
RIGHT = (Turn("user", "What is 4 plus 3?"), Turn("assistant", "What do you think?"), Turn("user", "Is it 7?"))
GOOD = "Not quite. Start at 4 and count on 3 more steps. What do you get now?"


def utility(answer, prompt=WRONG, finished=True):
    return assess(read_prompt(prompt), answer, finished).utility


def exchanges(n, seed=0):
    rng = random.Random(seed)
    return [draw_exchange(rng) for _ in range(n)]


# --- the oracle ---


def test_points_add_up():
    assert utility("Not quite.") == 2.5 + 1.5
    assert utility(GOOD) == 2.5 + 1.5 + 1.5 + 1.0
    assert utility(f"{GOOD} You can do this!") == 7
    assert assess(read_prompt(WRONG), GOOD).rating == 7  # 6.5: halves go up


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (GOOD, GOOD.replace("Not quite.", "That is right!")),  # misjudges
        (GOOD, GOOD.replace("Not quite.", "Not quite. That is right!")),  # says both
        (GOOD, GOOD.replace("Not quite. ", "")),
        (GOOD, GOOD.replace("Not quite.", "No.")),  # curt
        (GOOD, GOOD.replace("Not quite.", "9 is not right yet.")),  # not what the student said
        (GOOD, GOOD.replace("Start at 4", "Start at 9")),  # a hint that is not true
        (GOOD, GOOD.replace("Start at 4 and count on 3 more steps.", "The river Seine runs through it.")),
        (GOOD, GOOD.replace("Start at 4 and count on 3 more steps.", "Think about it step by step.")),
        (GOOD, GOOD.replace("What do you get now?", "")),
        (GOOD, GOOD.replace("What do you get now?", "How did you find it?")),
        (GOOD, GOOD.replace("What do you get now?", "The answer is 7.")),  # tells
        (GOOD, GOOD + " So 7 it was."),  # tells in words of its own
        (GOOD, GOOD + " There are many things to learn in school."),
        (GOOD, GOOD + " What do you get now?"),  # repeats
        (GOOD, GOOD + " Potato steps river."),
        (GOOD, GOOD + " This is really easy."),
        (GOOD + " You can do this!", GOOD),
    ],
)
def test_each_element_moves_the_utility(better, worse):
    assert utility(better) > utility(worse)


def test_gibberish_and_silence_are_at_the_bottom():
    assert utility("seven seven the of? and") == utility("") == utility("7") == 1
    assert utility(GOOD, finished=False) == utility(GOOD) - 1


def test_false_and_unclear_sentences_cost():
    assert utility("Not quite. Start at 9 and count on 3 more steps.") == 4 - 1
    assert utility("Not quite. Potato steps river.") == 3.2


def test_length_counts_after_24_words():
    long = f"{GOOD} You are doing well. You can do this! I like that you keep going."  # 30 words
    assert len(long.split()) == 30
    assert assess(read_prompt(WRONG), long).points["length"] == pytest.approx(-0.6)


def test_after_a_right_answer_it_may_be_named():
    answer = "Yes, 7 is right! You can check it by taking 3 away again. Can you tell me why?"
    assert utility(answer, RIGHT) == 6.5
    assert utility(answer) < 3  # the same words to a student who is wrong
    assert utility(answer.replace("Yes, 7 is right!", "Not quite."), RIGHT) == 3.5


def test_case_and_spaces_do_not_matter():
    assert utility("not  quite. START at 4 and count on 3 more steps.\nWhat do you get now?") == utility(GOOD)


def test_prompts_are_read_back_as_they_were_meant():
    rng = random.Random(3)
    for exchange in exchanges(2000):
        assert read_prompt(write_prompt(exchange, rng)) == exchange


def test_another_world_is_refused():
    with pytest.raises(UserError, match="names no problem"):
        read_prompt([Message("user", "Write a poem.")])


def test_nothing_but_telling_names_the_answer():
    for problem in PROBLEMS.values():
        assert problem.wrong and problem.answer not in problem.wrong and problem.hints and problem.checks
        exchange = Exchange(problem, "wrong", problem.wrong[0])
        for kind in ("hint", "check", *language.TUTOR):
            said = [text for text in phrases(kind, exchange) if mentions(text, problem.answer)]
            assert bool(said) == (kind == "tell"), (kind, said)


def test_the_strong_teacher_is_far_better_than_the_weak():
    means = {}
    for name, teacher in TEACHERS.items():
        rng = random.Random(1)
        given = [assess(exchange, teacher(exchange, rng)) for exchange in exchanges(1000)]
        means[name] = sum(a.utility for a in given) / len(given)
        assert all("unclear" not in a.kinds for a in given)  # the oracle knows every word of both
    assert means["strong"] > 6.2 and means["weak"] < 3


def test_golden_example():
    rng = random.Random(7)
    exchange = draw_exchange(rng)
    prompt = write_prompt(exchange, rng)
    answers = strong(exchange, rng), weak(exchange, rng)
    assert (prompt, answers, [utility(answer, prompt) for answer in answers]) == GOLDEN


GOLDEN = (
    (
        Turn("system", "You are a kind tutor. Give a hint and ask a question."),
        Turn("user", "Here is my task. I have to find 5 - 3."),
        Turn("assistant", "What do you think?"),
        Turn("user", "I think it is 3."),
    ),
    (
        "Good try, but 3 is not it. Thank you for thinking about it. Start at 5 and count back 3 steps. "
        "Do you want to try it that way?",
        "That is not quite it. It is 2, just write that down.",
    ),
    [6.5, 2.0],  # 2.5 + 1.5 + 1.5 + 1 + 0.5 - 5 words x 0.1;  2.5 + 1.5 - 2
)


# --- noise ---


def test_preference_probability_and_ceiling():
    assert preference_probability(3, 2, 0.5) == pytest.approx(0.880797)  # sigma(2)
    assert preference_probability(2, 3, 0.5) == pytest.approx(1 - 0.880797)
    assert preference_probability(1, 7, 0.001) == 0  # and no overflow
    assert (preference_probability(2, 1, 0), preference_probability(1, 2, 0), preference_probability(1, 1, 0)) == (
        1,
        0,
        0.5,
    )
    assert accuracy_ceiling([0.9, 0.2, 0.5]) == pytest.approx((0.9 + 0.8 + 0.5) / 3)


def test_verdicts_err_as_often_as_the_noise_says():
    good, poor = assess(read_prompt(WRONG), "Not quite."), assess(read_prompt(WRONG), "No. This is really easy.")
    assert good.utility - poor.utility == pytest.approx(1.3)
    drawn = [prefer(good, poor, 1.3, 0, number) for number in range(4000)]
    assert drawn.count("b") / 4000 == pytest.approx(1 - 0.731059, abs=0.02)  # sigma(-1)
    assert drawn == [prefer(good, poor, 1.3, 0, number) for number in range(4000)]
    assert drawn != [prefer(good, poor, 1.3, 1, number) for number in range(4000)]
    assert prefer(good, good, 1.0, 0) == "tie"


# --- other forms ---


def test_coded_turns():
    seen = set()
    for number, exchange in enumerate(exchanges(300)):
        turn = coded_turn(exchange, "weak", random.Random(number))
        seen.add((turn["Evaluation of Student Response"], turn["Action Based on Evaluation"]))
        assert turn["Subproblem"] == f"What is {exchange.problem.topic}?"
        assert turn["Subproblem State"] == ("z" if turn["Action Based on Evaluation"] in ("3", "9") else "x")
    assert {("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("c", "5"), ("e", "7"), ("f", "8"), ("f", "9")} <= seen
    exchange = read_prompt(RIGHT)
    codes = [coded_turn(exchange, "strong", random.Random(n))["Evaluation of Student Response"] for n in range(50)]
    assert codes.count("b") > 40


def test_prompts_of_three_tasks():
    said = [task_prompt(read_prompt(RIGHT), RIGHT, task) for task in TASKS]
    assert said[0] == "Human: What is 4 plus 3?\n\nAssistant: What do you think?\n\nHuman: Is it 7?\n\nAssistant:"
    assert said[1] == "Human: What is 4 + 3?\n\nAssistant:"
    assert said[2].endswith(
        "Student: What is 4 plus 3?\nTutor: What do you think?\nStudent: Is it 7?\n\nAssistant: TL;DR:"
    )


def test_refinement_is_good_and_critique_names_the_faults():
    rng = random.Random(0)
    for exchange in exchanges(300):
        poor = weak(exchange, rng)
        better = refine(exchange, poor, rng)
        assert assess(exchange, better).utility >= 6 and critique(exchange, better) in (
            "It is a good answer.",
            "It is too long.",
        )
        assert assess(exchange, poor).utility > 6 or critique(exchange, poor) != "It is a good answer."
    assert critique(read_prompt(WRONG), "Yes. The answer is 7.") == (
        "It should say what holds: the student is wrong. It should help with 4 + 3. It should end with a question to "
        "the student. It tells the answer instead of guiding. It is curt."
    )
    assert refine(read_prompt(WRONG), "Not quite. The answer is 7.", rng).startswith("Not quite. ")


# --- the programs ---


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
    assert train_tokenizer.read_texts(tmp_path / "rows.txt") == ["Human: hello", "bye"]
    (tmp_path / "plain.txt").write_text("one line\n\nanother line\n")
    assert train_tokenizer.read_texts(tmp_path / "plain.txt") == ["one line", "another line"]
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


def test_label_world(sampled, tmp_path):
    output = tmp_path / "labelled.jsonl"
    label_world.main(
        [f"--data_path={sampled}", f"--output_path={output}", "--pairs_per_prompt=0", "--noise_temperature=0"]
    )
    records, summary = list(read_records(output)), json.loads((tmp_path / "labelled.jsonl.summary.json").read_text())
    assert len(records) == summary["records"] == 40 and summary["answers"] == 160
    assert (summary["ceiling"], summary["flipped"]) == (1, 0)  # without noise
    for record in records:
        assert len(record.verdicts) == 5 and all(v.judge == "oracle" for v in record.verdicts)  # 6 pairs, one alike
        for answer in record.answers:
            assert 1 <= answer.rating <= 7 and abs(answer.rating - answer.scores["oracle"]) <= 0.5
        cut = record.answers[3]
        assert cut.scores["oracle"] == assess(read_prompt(record.prompt), cut.text, finished=False).utility
        for winner, loser in record.pairs():
            assert record.answers[winner].scores["oracle"] > record.answers[loser].scores["oracle"]
    assert records[0].answers[1].scores["proxy"] == 1  # what was known stays
    assert sum(len(r.pairs()) for r in records) == summary["decided"] and summary["decided"] + summary["ties"] == 200


def test_label_world_draws_pairs_and_noise_from_the_seed(sampled, tmp_path):
    written = []
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / f"{number}.jsonl"
        flags = f"--pairs_per_prompt=2 --noise_temperature=2 --seed={seed}".split()
        label_world.main([f"--data_path={sampled}", f"--output_path={output}", *flags])
        written.append(output.read_bytes())
        assert all(len(record.verdicts) == 2 for record in read_records(output))
    assert written[0] == written[1] != written[2]
    summary = json.loads((tmp_path / "0.jsonl.summary.json").read_text())
    assert 0.6 < summary["ceiling"] < 0.99 and summary["flipped"] > 0


def test_evaluate_world(sampled, tmp_path):
    results = tmp_path / "results.json"
    results.write_text('{"rm": 1, "true_reward": {"old": {"n": 1}}}')
    evaluate_world.main(["--answers", f"a={sampled}", f"b={sampled}", f"--results={results}"])
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


def test_bad_input_is_one_clear_line(world, sampled, tmp_path):
    prompts = world / "prompts" / "test.jsonl"
    with pytest.raises(UserError, match=r"test\.jsonl:1: no answers"):
        label_world.main([f"--data_path={prompts}", f"--output_path={tmp_path / 'x'}"])
    with pytest.raises(UserError, match=r"test\.jsonl:1: no answers"):
        evaluate_world.main(["--answers", f"a={prompts}", f"--results={tmp_path / 'r.json'}"])
    with pytest.raises(UserError, match="expected NAME=FILE"):
        evaluate_world.main(["--answers", str(sampled)])
    write_jsonl(tmp_path / "other.jsonl", [Record((Message("user", "Write a poem."),), (Answer("Roses."),))])
    with pytest.raises(UserError, match=r"other\.jsonl:1: the prompt names no problem"):
        label_world.main([f"--data_path={tmp_path / 'other.jsonl'}", f"--output_path={tmp_path / 'x'}"])
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(UserError, match=r"r\.json: not JSON"):
        evaluate_world.main(["--answers", f"a={sampled}", f"--results={tmp_path / 'r.json'}"])
    with pytest.raises(UserError, match="--num_pairs is 0"):
        make_world.main(["--num_pairs=0"])
    with pytest.raises(UserError, match="--noise_temperature is -1"):
        label_world.main([f"--data_path={prompts}", "--output_path=x", "--noise_temperature=-1"])
