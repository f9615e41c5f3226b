"""What a person gives wrongly to the programs of prompts, groups, pairs and tutoring data: one line, exit code 2,
nothing written."""

import json

import in_process
import pytest
from toy_rows import write
from toys import ROOT

PROGRAM = {name: ROOT / "data_collect" / f"{name}.py" for name in ("gather_prompts", "group", "pairs", "tutor")}
ANSWERED = {"prompt": "Human: q\n\nAssistant:", "greedy": "a", "ppl": 1.0}
RATED = {"prompt": "q", "answers": [{"text": "a", "rating": 1}, {"text": "b", "rating": 2}]}
CONVERSATION = {"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "{}"}] * 2}


@pytest.fixture
def refuse(tmp_path, capsys):
    """The error line of a program that is refused; everything it would write goes to out/."""

    def run(name, *words):
        code, stderr = in_process.run(PROGRAM[name], *words), capsys.readouterr().err
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(errors) == 1 and "Traceback" not in stderr, stderr
        assert not list((tmp_path / "out").rglob("*"))
        return errors[0]

    return run


def gather(*data, tmp_path, **flags):
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return ["gather_prompts", "--data_path", *map(str, data), "--output_path", tmp_path / "out" / "p.txt", *words]


def test_gather_prompts(refuse, tmp_path):
    good = f"dolly:{write(tmp_path / 'good.jsonl', [{'instruction': 'a'}])}"
    bad = write(tmp_path / "bad.jsonl", [{"instruction": "a"}, {"question": "b"}])
    run = lambda *data, **flags: refuse(*gather(*data, tmp_path=tmp_path, **flags))  # noqa: E731
    assert "unknown source 'doly'; did you mean dolly?; known: hh (" in run(f"doly:{tmp_path / 'good.jsonl'}")
    assert "expected SOURCE:PATH" in run(tmp_path / "good.jsonl")
    assert "expected SOURCE:PATH or SOURCE:PATH=Nrows" in run(f"{good}=0.5")
    assert "none.jsonl: no such file or folder" in run(f"dolly:{tmp_path / 'none.jsonl'}")
    assert "no such files" in run(f"dolly:{tmp_path}/none*.jsonl")
    assert "the file is empty" in run(f"dolly:{write(tmp_path / 'empty.jsonl', [])}")
    line = run(f"dolly:{bad}")
    assert "bad.jsonl:2: no column 'instruction'; found the columns question (--on_bad_row skip" in line
    assert "broken.jsonl:1: not JSON" in run(f"dolly:{write(tmp_path / 'broken.jsonl', ['{'])}")
    assert "no prompt is left" in run(good, min_words=9)
    assert "--per_task is 0; expected 1 or more" in run(good, per_task=0)
    assert "--max_tokens and --tokenizer_name_or_path go together" in run(good, max_tokens=9)
    assert "go together" in run(good, tokenizer_name_or_path="x")
    assert "cannot be loaded" in run(good, tokenizer_name_or_path=tmp_path / "none", max_tokens=9)
    assert "--num_turns concerns the source sharegpt alone" in run(good, num_turns=2)
    assert "unknown option --max_word; did you mean --max_words?" in run(good, max_word=2)
    assert "--form: invalid choice: 'csv'" in run(good, form="csv")
    task = write(tmp_path / "task.jsonl", [{"prompt": "a", "answers": [], "meta": {"task": "poem"}}])
    assert "task.jsonl:1: task is 'poem'; expected one of dialog, qa, summary" in run(f"records:{task}")


def test_group(refuse, tmp_path):
    good, out = write(tmp_path / "a.jsonl", [ANSWERED]), tmp_path / "out" / "g.txt"
    run = lambda *words: refuse("group", "--output_path", out, "--answers", *words)  # noqa: E731
    unmeasured = write(tmp_path / "b.jsonl", [{**ANSWERED, "ppl": None}])
    other = write(tmp_path / "c.jsonl", [{**ANSWERED, "prompt": "Human: r\n\nAssistant:"}])
    assert "a preference (p of --assign) needs the answers of a second model" in run(good)
    assert "none.jsonl: no such file" in run(good, tmp_path / "none.jsonl")
    assert "b.jsonl:1: no ppl; expected what chatbot.py --mode ppl writes" in run(unmeasured, good)
    assert "have no prompt in common" in run(good, other)
    assert "--assign is 'cr'; expected three letters of c, r, p" in run(good, other, "--assign", "cr")
    assert "expected three letters" in run(good, other, "--assign", "crx")
    for quantiles in (["0.5"], ["0.7", "0.2"], ["0.2", "1.2"], ["nan", "0.5"]):
        assert "expected two shares from 0 to 1, ascending" in run(good, other, "--quantiles", *quantiles)
    assert "expected 2 different names, one a file" in run(good, other, "--base_models", "a")
    assert "expected 2 different names" in run(good, other, "--base_models", "a,a")
    assert "--seed is used by --random alone" in run(good, other, "--seed", "3")
    assert "a.jsonl:1: prompt ends with" in run(
        write(tmp_path / "d" / "a.jsonl", [{**ANSWERED, "prompt": "Human: q\n\nAssistant: a"}]), good
    )


def test_pairs(refuse, tmp_path):
    good, out = write(tmp_path / "a.jsonl", [RATED]), tmp_path / "out"
    run = lambda data, *words: refuse("pairs", "--data_path", data, *words)  # noqa: E731
    to = ("--output_dir", out)
    assert "nothing is written: give --output_dir, --critique_path or both" in run(good)
    assert "--stats measures the sets of --output_dir" in run(good, "--critique_path", out / "c", "--stats")
    assert "no critique waits for its answer to be rewritten" in run(good, "--critique_path", out / "c.jsonl")
    assert "none.jsonl: no such file or folder" in run(tmp_path / "none.jsonl", *to)
    assert "unknown data-set class 'rating'" in run(f"rating:{good}", *to)
    assert "--min_gap is 0.0; expected above 0" in run(good, *to, "--min_gap", "0")
    assert "--valid_share is 1.0; expected 0 or more and below 1" in run(good, *to, "--valid_share", "1")
    assert "--kinds stars: expected some of preference, rating" in run(good, *to, "--kinds", "stars")
    assert "no pair is left" in run(good, *to, "--min_gap", "2")
    assert "no pair is left" in run(good, *to, "--test_path", good)
    write(tmp_path / "model" / "config.json", [{}])
    assert "model holds a model; give the data a folder" in run(good, "--output_dir", tmp_path / "model")
    bad = write(tmp_path / "bad.jsonl", [RATED, {**RATED, "answers": [{"text": "a", "rating": "high"}]}])
    assert "bad.jsonl:2: answer field 'rating' is 'high'" in run(bad, *to)
    words = {"prompt": "q", "feedback_type": "prefer", "feedback": "A", "output": {"m": "a"}}
    assert "a preference between 1 answers; expected 2" in run(write(tmp_path / "w.jsonl", [words]), *to)
    praise = {**words, "feedback_type": "praise"}
    assert "w.jsonl:1: feedback_type is 'praise'" in run(write(tmp_path / "w.jsonl", [praise]), *to)


def test_tutor_split(refuse, tmp_path):
    assert "the mode is missing; expected one of split, pairs" in refuse("tutor")
    assert "mode splt: no such mode; expected one of split, pairs" in refuse("tutor", "splt")
    run = lambda *words: refuse("tutor", "split", "--data_dir", tmp_path / "d", *words)  # noqa: E731
    assert "no bio-dataset-1.json, -2.json, … there; expected at least one" in run()
    path = tmp_path / "d" / "bio-dataset-1.json"
    write(path, [json.dumps([CONVERSATION, {"id": 2}])])
    assert "bio-dataset-1.json[2]: found" in run() and "expected an object with a list of conversations" in run()
    write(path, ["[{"])
    assert "bio-dataset-1.json:1: not JSON" in run()
    write(path, [json.dumps([CONVERSATION])])
    assert "--num_sft is -1; expected 0 or more" in run("--num_sft", "-1")
    assert "--instruction_file none: cannot be read" in run("--instruction_file", "none")
    assert "--use_all is used by pairs, not by split" in run("--use_all")
    assert [found.name for found in (tmp_path / "d").iterdir()] == ["bio-dataset-1.json"]


def test_tutor_pairs(refuse, tmp_path):
    path = tmp_path / "responses.csv"
    run = lambda: refuse("tutor", "pairs", "--response_file", path, "--data_file", tmp_path / "out" / "p.json")  # noqa: E731
    assert "responses.csv: no such file" in run()
    path.write_text("prompt,answer\np,x\n")
    assert "responses.csv:2: found prompt, answer; expected the columns prompt, response, gpt" in run()
    path.write_text("prompt,response,gpt\np,x\n")
    assert "responses.csv:2: the line has not the 3 fields of the header" in run()
    path.write_text('prompt,response,gpt\np,x,"no object"\n')
    assert "none of 1 rows gives a pair: {'rows': 1, 'invalid references': 1}" in run()
    path.write_text("prompt,response,gpt\n")
    assert "none of 0 rows gives a pair" in run()
    assert "--response_file" in refuse("tutor", "pairs", "--data_file", "x")
