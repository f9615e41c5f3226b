"""chatbot.py: what it adds to rows, whatever the number of processes and however often it is killed."""

import json
import math
import os
import signal
import subprocess
import time

import pytest
import torch
from chats import HUMAN, PLAIN, RECORDS, TEXTS, chat, inputs, lm, models, one_thread, rm  # noqa: F401 (fixtures)
from toy_folders import command, quiet_environment, read_rows, run, write_rows

from inference import chatbot
from utils.answering.chat.streaming import AnswerStream
from utils.answering.files import open_files
from utils.answering.inference_model import InferenceModel
from utils.answering.output import Shards
from utils.arguments.inference import MODES
from utils.errors import UserError
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.records import Message
from utils.records.files import read_records


def test_greedy_answers_of_plain_rows_are_those_of_generate(folder, here):
    """Every column is kept, rows stand in the order of the input although batches go by length."""
    lm(folder, "generate", "--data_path", here / "plain.txt", "--max_new_tokens", 7, "--batch_size", 4)
    rows = read_rows(here / "plain-generate.jsonl")
    assert [{k: row[k] for k in PLAIN[0]} for row in rows] == PLAIN
    reader = InferenceModel(chatbot.ReaderArguments(str(folder / "lm"), template="human_assistant"))
    prompts = [reader.renderer.prompt_ids([Message("user", text)]) for text in TEXTS]
    expected = generate(reader.model, GenerationRequest(reader.renderer, prompts, Sampling(7, temperature=0)), 6)
    assert [row["greedy"] for row in rows] == [c.text for (c,) in expected]
    assert [row["greedy_finished"] for row in rows] == [c.finished for (c,) in expected]


def test_samples_of_records_are_appended_and_signed(folder, here):
    known = [{**RECORDS[0], "answers": [{"text": "known"}], "verdicts": []}, *RECORDS[1:]]
    write_rows(here / "records.jsonl", known)
    words = [
        "--data_path",
        here / "records.jsonl",
        "--num_samples",
        2,
        "--temperature",
        0.5,
        1.0,
        "--max_new_tokens",
        5,
    ]
    lm(folder, "generate", *words)
    records = list(read_records(here / "records-generate.jsonl"))
    assert [r.id for r in records] == [r["id"] for r in RECORDS] and [len(r.answers) for r in records] == [
        5,
        4,
        4,
        4,
        4,
        4,
    ]
    assert records[0].answers[0].text == "known"
    assert [a.sampling["temperature"] for a in records[1].answers] == [0.5, 0.5, 1.0, 1.0]
    assert {a.model for a in records[1].answers} == {f"{folder.name}/lm"} and records[1].answers[0].finished is False
    assert len({a.text for a in records[1].answers}) == 4


def test_plain_rows_keep_samples_as_a_list(folder, here):
    lm(folder, "generate", "--input_file", here / "plain.txt", "--num_samples", 2, "--max_new_tokens", 5)
    row = read_rows(here / "plain-generate.jsonl")[0]
    assert len(row["sample"]) == 2 and row["sample_finished"] == [False, False] and "greedy" not in row


def test_ppl_answers_what_has_no_answer_and_scores_the_rest(folder, here):
    """The three names, and the numbers of a plain forward over prompt, answer and end token."""
    given = {"prompt": PLAIN[0]["prompt"], "greedy": "it is five"}
    write_rows(here / "mixed.txt", [given, PLAIN[1]])
    lm(folder, "ppl", "--data_path", here / "mixed.txt", "--max_new_tokens", 6)
    scored, answered = read_rows(here / "mixed-ppl.jsonl")
    assert scored["greedy"] == "it is five" and "greedy_finished" not in scored
    assert scored["ppl"] == scored["nll_per_token"] and scored["perplexity"] == pytest.approx(math.exp(scored["ppl"]))
    lm(folder, "generate", "--data_path", here / "mixed.txt", "--max_new_tokens", 6)
    assert answered["greedy"] == read_rows(here / "mixed-generate.jsonl")[1]["greedy"]
    reader = InferenceModel(chatbot.ReaderArguments(str(folder / "lm"), template="human_assistant"))
    for row, text, finished in ((scored, TEXTS[0], True), (answered, TEXTS[1], answered["greedy_finished"])):
        messages = [Message("user", text)]
        prompt = reader.renderer.prompt_ids(messages)
        answer = reader.renderer.answer_ids(messages, row["greedy"], finished)
        reader.model.set_attn_implementation("sdpa")
        with torch.no_grad():
            logprobs = reader.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = -logprobs[range(len(answer)), answer].mean()
        assert row["nll_per_token"] == pytest.approx(float(expected), abs=1e-4)


def test_ppl_of_records_stands_with_each_answer(folder, here):
    """The same numbers as for plain rows; a cut answer is measured without an end token."""
    write_rows(here / "p.jsonl", [{"prompt": "hello", "sample": ["five", "is it"], "sample_finished": [True, False]}])
    answers = [{"text": "five", "scores": {"judge": 2.0}}, {"text": "is it", "finished": False}]
    write_rows(here / "r.jsonl", [{"prompt": "hello", "answers": answers}])
    for name in ("p", "r"):
        lm(folder, "ppl", "--data_path", here / f"{name}.jsonl")
    (plain,), (record,) = read_rows(here / "p-ppl.jsonl"), read_records(here / "r-ppl.jsonl")
    assert [a.scores["nll_per_token"] for a in record.answers] == plain["nll_per_token"]
    assert [a.scores["perplexity"] for a in record.answers] == plain["perplexity"]
    assert record.answers[0].scores["judge"] == 2.0 and record.answers[1].finished is False
    write_rows(here / "ended.jsonl", [{"prompt": "hello", "sample": ["five", "is it"]}])
    lm(folder, "ppl", "--data_path", here / "ended.jsonl")
    (ended,) = read_rows(here / "ended-ppl.jsonl")
    assert ended["ppl"][0] == plain["ppl"][0] and ended["ppl"][1] != plain["ppl"][1]


def test_offset_and_fraction_and_many_files(folder, here):
    """Two thirds of twelve rows from number 3 on, of two files in their order; the output is no input."""
    words = ["--data_path", here / "*.*", "--output_path", here / "part.jsonl", "--max_new_tokens", 3]
    for _ in range(2):
        lm(folder, "generate", *words, "--offset", 3, "--data_fraction", 2 / 3)
    rows = read_rows(here / "part.jsonl")
    assert [row.get("n") for row in rows[:3]] == [3, 4, 5] and [row["id"] for row in rows[3:]] == [
        f"r{n}" for n in range(5)
    ]
    with pytest.raises(UserError, match="--offset 12 leaves out all 12 rows"):
        lm(folder, "generate", *words, "--offset", 12, "--overwrite")


def test_files_of_other_things_are_one_short_line(folder, here):
    """A completions file has a prompt to each key; a folder may hold anything."""
    whole = {f"Do thing number {n}, please, and then say that it is done.": ["a", "b"] for n in range(500)}
    (here / "completions.json").write_text(json.dumps(whole))
    (here / "wide.jsonl").write_text(json.dumps(dict.fromkeys(whole, 1)))
    folders = {"logs/metrics.jsonl": b'{"step": 1}', "bytes/x.jsonl": b"\xff\xfe", "pictures/x.png": b""}
    for name, content in folders.items():
        (here / name).parent.mkdir()
        (here / name).write_bytes(content)
    for path, message in [
        ("completions.json", "found the columns Do thing number 0, .*one object with a prompt.* as completions:PATH"),
        ("wide.jsonl", "found the columns Do thing number 0, please, .* and 492 more, which fit no class"),
        ("logs", "metrics.jsonl:1: found the columns step, which fit no class"),
        ("bytes", "x.jsonl: cannot be read as text"),
        ("pictures", "the folder holds x.png; expected train and test files"),
    ]:
        with pytest.raises(UserError, match=message) as found:
            lm(folder, "generate", "--input_file", here / path)
        assert str(found.value).count("Do thing") <= 8


def test_a_finished_output_is_left_alone_and_another_command_refused(folder, here, capsys):
    words = ["--data_path", here / "plain.txt", "--max_new_tokens", 3]
    lm(folder, "generate", *words)
    output = here / "plain-generate.jsonl"
    before = output.read_bytes(), output.stat().st_mtime_ns
    lm(folder, "generate", *words, "--batch_size", 2)
    assert "already finished, 6 rows; nothing to do" in capsys.readouterr().out
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    with pytest.raises(
        UserError, match=r"another max_new_tokens \(3, now 4\); give another --output_path, or --overwrite"
    ):
        lm(folder, "generate", *words[:-1], 4)
    write_rows(here / "plain.txt", PLAIN[:5] + [{**PLAIN[5], "n": 99}])
    with pytest.raises(UserError, match="another data"):
        lm(folder, "generate", *words)
    lm(folder, "generate", *words, "--overwrite")
    assert read_rows(output)[5]["n"] == 99
    (here / "plain-generate.jsonl.args.json").unlink()
    with pytest.raises(UserError, match="nothing beside it says what made it"):
        lm(folder, "generate", *words)


def sampled(folder, data, output, *words):
    model = ["--mode", "generate", "--model_name_or_path", folder / "lm", *HUMAN]
    files = ["--data_path", data, "--output_path", output, "--batch_size", 2]
    return [*model, *files, "--num_samples", 2, "--max_new_tokens", 12, *words]


def test_two_processes_write_the_same_file(folder, here):
    """torchrun and python -m torch.distributed.launch, from another folder than the repository's."""
    chat(*sampled(folder, here / "records.jsonl", here / "one.jsonl"))
    done = run("inference/chatbot.py", *sampled(folder, here / "records.jsonl", here / "two.jsonl"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert (here / "one.jsonl").read_bytes() == (here / "two.jsonl").read_bytes()
    words = ["--mode", "rm", "--model_name_or_path", folder / "rm", *HUMAN, "--data_path"]
    chat(*words, here / "one.jsonl")
    done = run("inference/chatbot.py", *words, here / "two.jsonl", ranks=2, module="torch.distributed.launch")
    assert done.returncode == 0, done.stderr
    assert (here / "one-rm.jsonl").read_bytes() == (here / "two-rm.jsonl").read_bytes()
    assert all(left.name.endswith(".plumbline.json") for left in here.glob(".*"))


def test_killed_and_started_again_it_goes_on(folder, here):
    """SIGKILL with some rows written, and a line torn by hand; then the same command with fewer prompts at a time."""
    many = [{"id": f"r{n}", "prompt": f"{TEXTS[n % 6]} {n}", "answers": []} for n in range(60)]
    write_rows(here / "many.jsonl", many)
    chat(*sampled(folder, here / "many.jsonl", here / "whole.jsonl", "--max_prompt_seq_len", 60))
    words = [str(w) for w in sampled(folder, here / "many.jsonl", here / "out.jsonl", "--max_prompt_seq_len", 60)]
    part = here / ".out.jsonl.parts" / "rank-0.jsonl"
    process = subprocess.Popen(
        command("inference/chatbot.py", *words),
        env=quiet_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 120
        while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (here / "out.jsonl").exists()
    written = part.read_bytes()
    assert 0 < written.count(b"\n") < 60
    part.write_bytes(written.rstrip(b"\n")[:-7])
    chat(*words)
    assert (here / "out.jsonl").read_bytes() == (here / "whole.jsonl").read_bytes()
    assert not part.parent.exists()


def test_shards_compute_only_what_is_missing(tmp_path):
    def work(batch):
        asked.append(list(batch))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [n * n for n in batch]

    batches, asked = [[0, 3], [1, 4], [2]], []
    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path / "x.jsonl", {"a": 1}, 5).fill(batches, work, "squares")
    with pytest.raises(UserError, match=r"another a \(1, now 2\)"):
        Shards(tmp_path / "x.jsonl", {"a": 2}, 5)
    shards = Shards(tmp_path / "x.jsonl", {"a": 1}, 5)
    assert shards.done == {0, 3}
    shards.fill(batches, work, "squares")
    assert asked == [[0, 3], [1, 4], [1, 4], [2]] and list(shards.read()) == [0, 1, 4, 9, 16]
    assert Shards(tmp_path / "x.jsonl", {"a": 1}, 5).finished


def test_a_full_disk_loses_nothing(folder, here):
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); import signal; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from utils.reporting import run_program; "
        "from inference.chatbot import main; run_program(lambda: main(sys.argv[1:]))"
    )
    words = [str(w) for w in sampled(folder, here / "records.jsonl", here / "out.jsonl")]
    done = subprocess.run(
        [*command("x")[:1], "-c", limited, *words], env=quiet_environment(), cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 2 and "out.jsonl: cannot be written: File too large" in done.stderr.splitlines()[-1]
    chat(*words)
    chat(*sampled(folder, here / "records.jsonl", here / "whole.jsonl"))
    assert (here / "out.jsonl").read_bytes() == (here / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data_path", "x"], "--mode is missing"),
        (["--mode", "talk"], "--mode talk: no such mode"),
        (["--mode", "rm", "--num_samples", "4"], "--num_samples is used by --mode generate, not by --mode rm"),
        (
            ["--mode", "ppl", "--temperature", "1.0"],
            "--temperature is used by --mode generate and chat, not by --mode ppl",
        ),
        (
            ["--mode=chat", "--data_path", "x"],
            "--data_path is used by --mode generate and ppl and rm, not by --mode chat",
        ),
        (["--mode", "rm", "--input-file", "x", "--max-new-tokens", "4"], "--max_new_tokens is used by --mode"),
        (["--mode", "generate", "--top_p", "0.5"], "--top_p has no effect on a greedy answer"),
        (["--mode", "generate", "--num_samples", "1", "--temperature", "0"], "--temperature is 0; expected above 0"),
        (["--mode", "generate", "--num_samples", "1", "--temperature", "-1"], "--temperature is -1; expected above 0"),
        (["--mode", "generate", "--num_sample", "1"], "unknown option --num_sample; did you mean --num_samples"),
        (["--mode", "generate", "--batch_size", "0"], "--batch_size is 0"),
        (
            ["--mode", "generate", "--max_new_tokens", "0", "--data_path", "x"],
            "max_new_tokens is 0; expected 1 or more",
        ),
        (["--mode", "generate"], "--data_path is missing"),
        (["--mode", "generate", "--data_path", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--mode", "generate", "--data_path", "no*where"], r"no\*where: no such files"),
    ],
)
def test_wrong_words_are_one_line(words, message):
    with pytest.raises(UserError, match=message):
        chat(*words)


def test_wrong_files_and_models_are_one_line(folder, here):
    data = here / "plain.txt"
    with pytest.raises(UserError, match="--model_name_or_path is missing"):
        chat("--mode", "generate", "--data_path", data)
    with pytest.raises(UserError, match="rm is a reward model; a language model is wanted"):
        chat("--mode", "generate", "--model_name_or_path", folder / "rm", *HUMAN, "--data_path", data)
    with pytest.raises(UserError, match="lm is a language model; a reward model is wanted"):
        write_rows(here / "a.jsonl", [{"prompt": "hello", "greedy": "yes"}])
        chat("--mode", "rm", "--model_name_or_path", folder / "lm", *HUMAN, "--data_path", here / "a.jsonl")
    with pytest.raises(
        UserError, match="plain.txt:1: no answer to score; expected what chatbot.py --mode generate writes"
    ):
        rm(folder, "--data_path", data)
    with pytest.raises(UserError, match="has no chat template; give --template"):
        chat("--mode", "generate", "--model_name_or_path", folder / "lm", "--data_path", data)
    with pytest.raises(UserError, match="exceed the model's 256 positions"):
        lm(folder, "generate", "--data_path", data, "--max_new_tokens", 250, "--overwrite")
    with pytest.raises(UserError, match="is the input and would be the output"):
        lm(folder, "generate", "--data_path", data, "--output_path", data)
    (here / "bad.jsonl").write_text('{"prompt": "hello"}\n{"prompt": \n')
    with pytest.raises(UserError, match="bad.jsonl:2: not JSON"):
        lm(folder, "generate", "--data_path", here / "bad.jsonl")
    write_rows(here / "odd.jsonl", [{"prompt": "hello", "greedy": 5}])
    with pytest.raises(UserError, match="odd.jsonl:1: column 'greedy' is '5'"):
        rm(folder, "--data_path", here / "odd.jsonl")
    with pytest.raises(UserError, match="--max_seq_len 999 exceeds the model's 256 positions"):
        rm(folder, "--data_path", here / "a.jsonl", "--max_seq_len", 999)


def test_long_prompts_lose_their_start_and_are_counted(folder, here, capsys):
    write_rows(here / "long.jsonl", [{"prompt": "be kind " * 100 + "hello"}, {"prompt": "hello"}])
    lm(folder, "generate", "--data_path", here / "long.jsonl", "--max_new_tokens", 4, "--max_prompt_seq_len", 40)
    assert "1  prompts cut at their start" in capsys.readouterr().out
    reader = InferenceModel(chatbot.ReaderArguments(str(folder / "lm"), template="human_assistant"))
    rows, _ = open_files(_files(here / "long.jsonl"), "x", "chatbot.py")
    record = rows[0].record
    prompt = reader.prompt(record, 40)
    assert len(prompt) == 40 and prompt == reader.renderer.prompt_ids(record.prompt)[-40:]


def _files(path):
    return MODES["generate"](data_path=[str(path)])


def test_config_of_another_folder(folder, here):
    """Half the positions in a config beside: --config_name_or_path is read, and the weights are the model's."""
    other = here / "config"
    other.mkdir()
    config = json.loads((folder / "lm" / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    words = ["--data_path", here / "plain.txt", "--max_new_tokens", 3]
    with pytest.raises(UserError, match="exceed the model's 16 positions"):
        lm(folder, "generate", *words, "--config_name_or_path", other)


def test_chat_is_a_conversation(folder, tmp_path):
    words = ["--mode", "chat", "--model_name_or_path", folder / "lm", *HUMAN, "--max_new_tokens", 6, "--temperature", 0,
             "--reward_model_name_or_path", folder / "rm"]  # fmt: skip
    said = "hello\n/system be kind\nhello\n/what\n/reset\nfive\n/quit\nnever read\n"
    done = subprocess.run(
        command("inference/chatbot.py", *words), input=said, env=quiet_environment(), cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model ›") == 3 and done.stdout.count("score ") == 3, done.stderr
    assert "the model is told: be kind" in done.stdout and done.stdout.count("/system TEXT") == 2


def test_what_may_become_a_stop_string_waits(folder):
    renderer = InferenceModel(chatbot.ReaderArguments(str(folder / "lm"), template="human_assistant")).renderer
    stream, shown = AnswerStream(renderer, ["\n\nHuman:"]), []
    ids = renderer.encoder.ids([" five is\n\nHum\n\nHuman: hello"])[0]
    for n in range(1, len(ids) + 1):
        stream.add(ids[:n])
        shown.append(stream.text)
    assert shown[-1] == "five is\n\nHum" and not any(text.endswith(("\n", "\n\nHu")) for text in shown)
