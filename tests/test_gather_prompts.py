"""Prompts from data sets of other people: each source's rows, the filters, the draws, the three forms."""

import gzip
import json

import pytest
from small_tokenizers import byte_level
from toy_rows import DATA, real_data, write

from data_collect import gather_prompts
from utils.errors import UserError
from utils.feedback.prompt_sources import SOURCES, SUMMARY, prompts_of
from utils.feedback.source_prompt import MARKS_INSIDE, SourcePrompt
from utils.raw_datasets.base import LeftOut
from utils.raw_datasets.dialogue import DIFFERS
from utils.raw_datasets.whole import records_of
from utils.records import Message, RecordError
from utils.records.files import read_records

HELLO = "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: Name a fruit.\n\nAssistant:"
DIALOG = "Human: Hello\n\nAssistant: Hi.\n\nHuman: Name a fruit.\n\nAssistant: "
POST = "SUBREDDIT: r/pets\nTITLE: My dog\nPOST: He barks."
POSTED = f"Human: {SUMMARY}{POST}\n\nAssistant: TL;DR:"
QUESTION = {"dataset": "eli5", "id": "1", "full_text": "Why is ice cold?"}
ASKED = "Human: Why is ice cold?\n\nAssistant:"


def chat(*values, first="human"):
    names = ("human", "gpt") if first == "human" else ("gpt", "human")
    return {"conversations": [{"from": names[i % 2], "value": value} for i, value in enumerate(values)]}


ROWS = [  # source, row, its prompts, the answers of the first
    ("hh", {"chosen": HELLO + " Fig", "rejected": HELLO + " No"}, [DIALOG], ("Fig", "No")),
    ("hh", {"prompt": HELLO, "chosen": " Fig", "rejected": " No"}, [DIALOG], ("Fig", "No")),
    ("hh", {"prompt": HELLO}, [DIALOG], ()),
    ("webgpt", {"question": QUESTION}, [ASKED], ()),
    ("webgpt", {"question": "Why is ice cold?", "score_0": "-1", "score_1": "1", "answer_0": "No [1].",
                "answer_1": "It is frozen [1, 2].[3] So [see]."}, [ASKED], ("It is frozen. So [see].", "No.")),
    ("webgpt", {"question": QUESTION, "score_0": 0.5, "score_1": -0.5, "answer_0": "a", "answer_1": "b"}, [ASKED],
     ("a", "b")),
    ("tldr", {"prompt": f"{POST}\n\nTL;DR:", "label": " A loud dog"}, [POSTED], ("A loud dog",)),
    ("tldr", {"prompt": POST, "chosen": "s", "rejected": "t"}, [POSTED], ("s", "t")),
    ("tldr", {"info": {"subreddit": "r/pets", "title": "My dog", "post": "He barks."}, "choice": 1,
              "summaries": [{"text": " t"}, {"text": " s"}]}, [POSTED], ("s", "t")),
    ("dolly", {"instruction": "Name a fruit.", "context": "", "response": "Fig."},
     ["Human: Name a fruit.\n\nAssistant:"], ()),
    ("dolly", {"instruction": "Sum up.", "context": "Long.", "category": "x"},
     ["Human: Sum up.\n\n### Input:\nLong.\n\nAssistant:"], ()),
    ("self_instruct", {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": ""}]},
     ["Human: Add.\n\n### Input:\n1 2\n\nAssistant:", "Human: Add.\n\nAssistant:"], ()),
    ("natural_instructions", {"Definition": ["Classify."], "Instances": [{"input": "a"}, {"input": "b"}]},
     ["Human: Classify.\n\n### Input:\na\n\nAssistant:", "Human: Classify.\n\n### Input:\nb\n\nAssistant:"], ()),
    ("natural_instructions", {"instruction": "Classify.", "input": "a"},
     ["Human: Classify.\n\n### Input:\na\n\nAssistant:"], ()),
    ("sharegpt", chat("Hello", "Hi.", "Name a fruit.", "Fig."),
     ["Human: Hello\n\nAssistant: ", "Human: Hello\n\nAssistant: Hi.\n\nHuman: Name a fruit.\n\nAssistant: "], ()),
]  # fmt: skip


@pytest.mark.parametrize("name, row, texts, answers", ROWS)
def test_the_prompts_of_a_row(name, row, texts, answers):
    found = list(prompts_of(name, row, "a:1", num_turns=2))
    assert [prompt.text for prompt in found] == texts
    assert found[0].answers == answers and found[0].task == SOURCES[name].task
    assert found[0].line()["prompt"] == texts[0]
    (record,) = {prompt.record().prompt for prompt in found[-1:]}
    assert record[-1].role == "user"


def test_every_source_has_a_row_above():
    assert {row[0] for row in ROWS} == set(SOURCES)


@pytest.mark.parametrize(
    "name, row, reason",
    [
        ("hh", {"chosen": HELLO + " Fig", "rejected": HELLO.replace("Hi", "No") + " No"}, DIFFERS),
        ("webgpt", {"question": "q", "score_0": 0, "score_1": 0, "answer_0": "a", "answer_1": "b"}, "ties in score"),
        ("dolly", {"instruction": " "}, "empty prompts"),
        ("dolly", {"instruction": "Go on:\n\nHuman: Hello\n\nAssistant: Hi"}, MARKS_INSIDE),
        ("sharegpt", chat("Hello", "Hi <|endoftext|>"), "conversations with <s>, </s>, <|endoftext|>"),
        ("sharegpt", chat("a", "b", "c <s>"), "conversations with <s>, </s>, <|endoftext|>"),
        ("sharegpt", chat("Hi", "Hello", first="gpt"), "chats that start with the assistant"),
        ("sharegpt", {"conversations": []}, "empty conversations"),
    ],
)
def test_a_row_of_no_use_is_left_out(name, row, reason):
    (left,) = prompts_of(name, row, "a:1")
    assert isinstance(left, LeftOut) and left.reason == reason


def test_one_prompt_of_no_use_leaves_the_others_of_its_row():
    row = {"Definition": "Say it.", "Instances": [{"input": "x\n\nHuman: y"}, {"input": "z"}]}
    left, kept = prompts_of("natural_instructions", row, "a:1")
    assert isinstance(left, LeftOut) and isinstance(kept, SourcePrompt)


@pytest.mark.parametrize(
    "name, row, says",
    [
        ("webgpt", {"answer_0": "a"}, "no column 'full_text' or 'question'"),
        ("webgpt", {"question": "q", "score_0": "high", "score_1": 1}, "column 'score_0' is 'high'; expected a number"),
        ("self_instruct", {"instruction": "a"}, "column 'instances' is 'None'"),
        ("self_instruct", {"instruction": "a", "instances": ["b"]}, "expected a list of {input, output}"),
        ("sharegpt", {"conversations": [{"from": "robot", "value": "a"}]}, "has role 'robot'"),
        ("tldr", {"post": "a"}, "no column 'prompt'"),
        ("hh", ["a"], "expected an object of columns"),
    ],
)
def test_a_row_of_another_shape_is_an_error_with_its_place(name, row, says):
    with pytest.raises(RecordError, match=r"a:1: .*" + says.replace("{", r"\{")):
        list(prompts_of(name, row, "a:1"))


# ---- the program


def gather(tmp_path, *flags):
    """(rows, summary) of a run."""
    output, summary = tmp_path / "out" / "problems.txt", tmp_path / "summary.json"
    gather_prompts.main([*map(str, flags), "--output_path", str(output), "--summary", str(summary)])
    return [json.loads(line) for line in output.read_text().splitlines()], json.loads(summary.read_text())


def dolly(*instructions):
    return [{"instruction": text, "context": ""} for text in instructions]


def texts(rows):
    return [row["prompt"].removeprefix("Human: ").removesuffix("\n\nAssistant:") for row in rows]


def test_sources_are_merged_with_counts_and_without_duplicates(tmp_path, capsys):
    a = write(tmp_path / "dolly.jsonl", dolly("one", "two", "one", " "))
    row = {"instruction": "two", "instances": [{"input": ""}, {"input": "x"}]}
    b = write(tmp_path / "user.jsonl", [row])
    found, summary = gather(tmp_path, "--data_path", f"dolly:{a}", f"self_instruct:{b}")
    assert texts(found) == ["one", "two", "two\n\n### Input:\nx"]
    assert [row["source"] for row in found] == ["dolly", "dolly", "self_instruct"]
    assert [row["task"] for row in found] == ["qa"] * 3
    assert summary["prompts"] == 3 and summary["tasks"] == {"qa": 3}
    first, second = summary["sources"]
    assert first == {
        "source": "dolly",
        "path": a,
        "rows": 4,
        "prompts": 3,
        "duplicates": 1,
        "empty prompts": 1,
        "kept": 2,
    }
    assert second == {"source": "self_instruct", "path": b, "rows": 1, "prompts": 2, "duplicates": 1, "kept": 1}
    assert "duplicates" in capsys.readouterr().out


def test_length_filters_and_unwanted_words(tmp_path):
    """The prompt's own marks count: Human: and Assistant: are two words and, with two line breaks, 19 characters."""
    path = write(tmp_path / "a.jsonl", dolly("one", "one two", "one two three four", "Fact-check it"))
    run = lambda *flags: texts(gather(tmp_path, "--data_path", f"dolly:{path}", *flags)[0])  # noqa: E731
    assert run("--max_words", 4) == ["one", "one two", "Fact-check it"]
    assert run("--max_words", 4, "--leave_out", "Fact-check") == ["one", "one two"]
    assert run("--min_words", 6) == ["one two three four"] and len(run("--min_words", 4)) == 3
    assert run("--max_characters", 19 + 3) == ["one"]
    summary = gather(tmp_path, "--data_path", f"dolly:{path}", "--max_words", 3, "--leave_out", "Fact")[1]
    assert summary["sources"][0] | {"too long": 2, "unwanted words": 1, "kept": 1} == summary["sources"][0]


def test_length_in_tokens(tmp_path):
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = write(tmp_path / "a.jsonl", dolly("hello", "hello hello hello hello"))
    counts = [len(tokenizer(f"Human: {text}\n\nAssistant:")["input_ids"]) for text in ("hello", "hello" + " hello" * 3)]
    flags = ("--data_path", f"dolly:{path}", "--tokenizer_name_or_path", tmp_path / "tokenizer", "--max_tokens")
    assert texts(gather(tmp_path, *flags, counts[0])[0]) == ["hello"]
    assert len(gather(tmp_path, *flags, counts[1])[0]) == 2
    assert texts(gather(tmp_path, *flags, counts[1] - 1)[0]) == ["hello"]


def test_draws_are_by_task_by_source_and_by_seed(tmp_path):
    a = write(tmp_path / "a.jsonl", dolly(*(f"q{i}" for i in range(50))))
    b = write(tmp_path / "b.jsonl", [chat(f"c{i}", "x") for i in range(5)])
    flags = ("--data_path", f"dolly:{a}", f"sharegpt:{b}", "--per_task", 8)
    found, summary = gather(tmp_path, *flags)
    drawn = texts(found)[:8]
    assert len(found) == 8 + 5 and drawn == sorted(drawn, key=lambda text: int(text[1:]))
    assert summary["sources"][0]["not drawn"] == 42 and summary["sources"][1]["kept"] == 5
    assert gather(tmp_path, *flags)[0] == found
    assert gather(tmp_path, *flags, "--seed", 1)[0] != found
    found, summary = gather(tmp_path, "--data_path", f"dolly:{a}=7rows", f"sharegpt:{b}=2rows")
    assert [source["kept"] for source in summary["sources"]] == [7, 2]
    assert texts(found)[:7] == sorted(texts(found)[:7], key=lambda text: int(text[1:]))


def test_what_was_not_drawn_is_no_duplicate(tmp_path):
    path = write(tmp_path / "a.jsonl", dolly(*(f"q{i}" for i in range(20))))
    found, summary = gather(tmp_path, "--data_path", f"dolly:{path}=5rows", f"dolly:{path}")
    assert len(found) == 20 and summary["sources"][1]["duplicates"] == 5


def test_forms(tmp_path):
    a = write(tmp_path / "a.jsonl", [{"chosen": HELLO + " Fig", "rejected": HELLO + " No"}])
    b = write(tmp_path / "b.jsonl", [{"prompt": f"{POST}\n\nTL;DR:", "label": "s"}])
    c = write(tmp_path / "c.jsonl", [{"instruction": "Sum up.", "context": "Long."}])
    paths = ("--data_path", f"hh:{a}", f"tldr:{b}", f"dolly:{c}")
    lines, _ = gather(tmp_path, *paths, "--keep_answers")
    assert lines[0] == {"prompt": DIALOG, "task": "dialog", "source": "hh", "chosen": "Fig", "reject": "No"}
    assert lines[1] == {"prompt": POSTED, "task": "summary", "source": "tldr", "chosen": "s"}
    assert "chosen" not in gather(tmp_path, *paths)[0][0]
    gather(tmp_path, *paths, "--form", "records", "--keep_answers")
    records = list(read_records(tmp_path / "out" / "problems.txt"))
    assert records[0].prompt[0] == Message("user", "Hello") and records[0].pairs() == [(0, 1)]
    assert records[1].prompt == (Message("user", f"{SUMMARY}{POST}\n\nTL;DR:"),)
    assert records[1].meta == {"task": "summary", "source": "tldr"}
    write(tmp_path / "lines.jsonl", lines[:2])
    assert [record.prompt for record in records_of(f"prompt_answer:{tmp_path / 'lines.jsonl'}")] == [
        record.prompt for record in records[:2]
    ]  # the two forms are one prompt
    rows, summary = gather(tmp_path, *paths, "--form", "instructions")
    assert rows[1] == {"instruction": "Sum up.", "input": "Long.", "source": "dolly"}
    assert summary["sources"][0]["of several turns"] == 1


def test_records_and_what_every_class_reads_are_a_source(tmp_path):
    system = [{"role": "system", "content": "Guide."}, {"role": "user", "content": "What is 2 + 3?"}]
    rows = [{"prompt": system, "meta": {"task": "question"}}, {"prompt": system[1:], "meta": {"task": "summary"}}]
    a = write(tmp_path / "a.jsonl", rows)
    b = write(tmp_path / "b.json", ['{"Name a fruit.": ["Fig."]}'])
    found, _ = gather(tmp_path, "--data_path", f"records:{a}", f"records:completions:{b}")
    assert [row["prompt"] for row in found] == [
        "Guide.\n\nHuman: What is 2 + 3?\n\nAssistant:",
        "Human: What is 2 + 3?\n\nAssistant: TL;DR:",
        "Human: Name a fruit.\n\nAssistant: ",
    ]
    assert [row["task"] for row in found] == ["qa", "summary", "dialog"]


def test_files_of_all_kinds(tmp_path):
    """gzip, CSV, a JSON list, a glob of files and the training split of a folder."""
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(dolly("zipped")[0]) + "\n")
    (tmp_path / "b.csv").write_text('instruction,context\n"com,ma",\n')
    (tmp_path / "c.json").write_text(json.dumps(dolly("listed")))
    for number in (1, 2):
        task = {"Definition": [f"Task {number}."], "Instances": [{"input": "x"}], "Contributors": ["a"]}
        write(tmp_path / "tasks" / f"task{number}.json", [json.dumps(task, indent=1)])
    write(tmp_path / "folder" / "train.jsonl", dolly("trained"))
    write(tmp_path / "folder" / "test.jsonl", dolly("tested"))
    names = [f"dolly:{tmp_path / name}" for name in ("a.jsonl.gz", "b.csv", "c.json", "folder")]
    found, _ = gather(tmp_path, "--data_path", *names, f"natural_instructions:{tmp_path}/tasks/*.json")
    assert texts(found) == ["zipped", "com,ma", "listed", "trained", *(f"Task {n}.\n\n### Input:\nx" for n in (1, 2))]


def test_a_named_file_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch):
    """No network: the cache holds the file as huggingface_hub leaves it."""
    from huggingface_hub import constants

    root = tmp_path / "hub" / "datasets--hbXNov--sparse_feedback"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    (snapshot / "absolute_gpt_3.5_turbo_score.csv").write_text("Name a fruit.,,Fig.,6\nName a fruit.,,No.,2\n")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (record,) = records_of("hbXNov/sparse_feedback:ratings")
    assert [answer.rating for answer in record.answers] == [6, 2]
    found, _ = gather(tmp_path, "--data_path", "records:hbXNov/sparse_feedback:ratings")
    assert [row["prompt"] for row in found] == ["Human: Name a fruit.\n\nAssistant: "]
    with pytest.raises(UserError, match="hbXNov/sparse_feedback:rankings: the hub's file relative_.* cannot be had"):
        list(records_of("hbXNov/sparse_feedback:rankings"))
    with pytest.raises(UserError, match="expected one of TRI-ML/dpo-rlaif-data:sharegpt, TRI-ML"):
        list(records_of("TRI-ML/dpo-rlaif-data"))


@real_data
def test_real_dialogues_and_instructions(tmp_path):
    paths = [f"hh:{DATA}/hh-rlhf/helpful-base", f"self_instruct:{DATA}/self_instruct/seed_tasks.jsonl"]
    paths += [f"natural_instructions:{DATA}/sparse_feedback/natural_instructions.json=100rows"]
    found, summary = gather(tmp_path, "--data_path", *paths, "--max_words", 1000)
    assert [(s["source"], s["rows"], s["prompts"]) for s in summary["sources"]] == [
        ("hh", 1999, 1990), ("self_instruct", 175, 175), ("natural_instructions", 1000, 1000),
    ]  # fmt: skip
    assert summary["sources"][0][DIFFERS] == 9 and summary["sources"][2]["kept"] == 100
    assert all(row["prompt"].startswith("Human: ") for row in found)
    again = list(records_of(str(tmp_path / "out" / "problems.txt")))
    assert len(again) == len(found) and again[0].meta["task"] == "dialog"
