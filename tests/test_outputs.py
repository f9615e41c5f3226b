"""No program replaces what it did not write itself, and none its own input (utils/outputs.py): every program against
a foreign file, its own output, its own output edited by hand, its input, with and without --overwrite."""

import json
import os
import shutil
from dataclasses import dataclass

import in_process
import pytest
from in_process import DPO, PPO, REWARD, SFT
from oracle import oracle
from requesting import exchanges, record
from stages import demonstrations, toy_data, toy_model
from test_tutor_data import conversation, turn
from toy_folders import lm_folder, rm_folder, write_rows
from toys import ROOT

from utils import outputs, provenance
from utils.errors import UserError
from utils.llm.ledger import Ledger
from utils.records import Message, Record


@dataclass(frozen=True)
class Program:
    """`words`: the command without its output, {w} for the folder of inputs. `flag` names the output, by default out;
    `file` is the one that is watched, in a folder; `input` is an input that would be the output. `takes`: a folder of
    the inputs that the output starts as."""

    words: str
    flag: str
    output: str = "out.jsonl"
    file: str | None = None
    input: str | None = None
    takes: str | None = None


PAIR = "--answers {w}/first.jsonl {w}/second.jsonl --base_models a,b"
SCORED = "--model_name_or_path {w}/rm --data_path {w}/rated.jsonl --template plain"
PROMPTS = "--data_path {w}/plain.jsonl --max_new_tokens 2 --template plain"
WORLD = "--num_demonstrations 200 --num_prompts 3 --num_pairs 3 --num_test 2 --vocab_size 400"
PROGRAMS = {
    "convert": Program("data_collect/convert.py --from records --to generations-n --input {w}/plain.jsonl", "--output",
                       input="plain.jsonl"),
    "convert a folder": Program("data_collect/convert.py --from pairs --to records --input {w}/pairs", "--output",
                                "sets", "train.jsonl", input="pairs"),
    "gather_prompts": Program("data_collect/gather_prompts.py --data_path records:{w}/plain.jsonl", "--output_path",
                              input="plain.jsonl"),
    "gather_prompts --summary": Program(
        "data_collect/gather_prompts.py --data_path records:{w}/plain.jsonl --output_path {o}/p.txt", "--summary",
        "out.json", input="plain.jsonl"),
    "group": Program(f"data_collect/group.py {PAIR}", "--output_path", input="second.jsonl"),
    "pairs": Program("data_collect/pairs.py --data_path {w}/pairs/train.jsonl --stats", "--output_dir", "sets",
                     "stats.json", input="pairs"),
    "pairs --critique_path": Program("data_collect/pairs.py --data_path {w}/rated.jsonl", "--critique_path",
                                     input="rated.jsonl"),
    "request": Program("data_collect/request.py --kind rating --input_files {w}/rated.jsonl --api_type oracle "
                       "--base_url {url}", "--output_file", input="rated.jsonl"),
    "tutor split": Program("data_collect/tutor.py split", "--data_dir", "tutor", "bio-dpo.json", takes="tutor"),
    "tutor pairs": Program("data_collect/tutor.py pairs --response_file {w}/responses.csv --use_all", "--data_file",
                           "out.json", input="responses.csv"),
    "consistency": Program("data_collect/consistency.py --ratings_csv {w}/rated.jsonl --rankings_csv {w}/rated.jsonl",
                           "--json", "out.json", input="rated.jsonl"),
    "ledger report": Program("data_collect/ledger.py report --ledger {w}/ledger", "--json", "out.json", input="ledger"),
    "ledger list": Program("data_collect/ledger.py list --ledger {w}/ledger", "--json", input="ledger"),
    "train_tokenizer": Program("data_collect/train_tokenizer.py --data_path {w}/text.txt --vocab_size 300",
                               "--output_dir", "tokenizer", "config.json"),
    "make_world": Program(f"data_collect/make_world.py {WORLD}", "--output_dir", "world", "prompts/train.jsonl"),
    "chatbot generate": Program(f"inference/chatbot.py --mode generate --model_name_or_path {{w}}/lm {PROMPTS}",
                                "--output_path", input="plain.jsonl"),
    "chatbot ppl": Program(f"inference/chatbot.py --mode ppl --model_name_or_path {{w}}/lm {PROMPTS}",
                           "--output_path", input="plain.jsonl"),
    "chatbot rm": Program(f"inference/chatbot.py --mode rm {SCORED}", "--output_path", input="rated.jsonl"),
    "rerank": Program("inference/rerank.py --data_path {w}/rated.jsonl --n 2", "--output_path", input="rated.jsonl"),
    "rerank: its curve": Program("inference/rerank.py --data_path {w}/rated.jsonl --n 1,2 --output_path {o}/b",
                                 "", "b-curve.json"),
    "rerank: its page": Program("inference/rerank.py --data_path {w}/rated.jsonl --n 2 --output_path {o}/b",
                                "", "b-curve.html"),
    "rerank: its samples": Program("inference/rerank.py --policy_name_or_path {w}/lm --model_name_or_path {w}/rm --n 2 "
                                   f"--output_path {{o}}/b {PROMPTS}", "", "b-samples.jsonl"),
    "eval_sft": Program(f"training/step1_sft/eval_sft.py --model_name_or_path {{w}}/lm {PROMPTS}", "--output_path",
                        input="plain.jsonl"),
    "prompt_eval": Program("training/step1_sft/prompt_eval.py --model_name_or_path_baseline {w}/lm --max_new_tokens 2 "
                           "--num_beams 1 --local_data_files {w}/plain.jsonl --template plain", "--output_path",
                           input="lm/config.json"),
    "rw_eval": Program(f"training/step2_reward/rw_eval.py {SCORED}", "--output_path", input="rated.jsonl"),
    "rw_eval: its metrics": Program(f"training/step2_reward/rw_eval.py {SCORED} --output_path {{o}}/b",
                                    "", "b-metrics.json"),
    "rw_eval: its figure": Program(f"training/step2_reward/rw_eval.py {SCORED} --output_path {{o}}/b",
                                   "", "b-metrics.png"),
    "rw_eval: answers made worse": Program(f"training/step2_reward/rw_eval.py {SCORED} --perturb --output_path {{o}}/b",
                                           "", "b-perturbed.jsonl"),
    "evaluate_world": Program("inference/evaluate_world.py --answers a={w}/rated.jsonl", "--results", "out.json",
                              input="rated.jsonl"),
    "win_rate": Program("inference/win_rate.py rankings --input {w}/rankings.csv", "--json", "out.json",
                        input="rankings.csv"),
    "bandit": Program("inference/bandit.py --seeds 2 --samples 10", "--output_path", "out.json"),
    "bandit: a figure": Program("inference/bandit.py --seeds 2 --samples 10 --output_path {o}/b.json",
                                "", "b-policies.png"),
    "eval_alpaca": Program("inference/eval_alpaca.py --annotations {w}/annotations.json", "--json", "out.json",
                           input="annotations.json"),
    "eval_alpaca: outputs": Program("inference/eval_alpaca.py --model_outputs {w}/outputs.json --generator m",
                                    "--output_dir", "results", "model_outputs.json"),
    "tutoring generate": Program("inference/tutoring.py generate --model_name_or_path {w}/lm --max_new_tokens 2 "
                                 "--data_path {w}/turns.json --template human_assistant", "--output_path", "out.csv"),
    "tutoring metrics": Program("inference/tutoring.py metrics --response_file {w}/coded.csv --first_turns keep",
                                "--json", "out.json", input="coded.csv"),
    "report": Program("inference/report.py", "--folder", "pipeline", "report.html", takes="pipeline"),
}  # fmt: skip
NOT_HERE = {"oracle_server.py", "main.py"}  # below


@pytest.fixture(scope="module")
def url():
    with oracle() as address:
        yield address


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Inputs of all programs."""
    w = tmp_path_factory.mktemp("inputs")
    rows = [record(item, number).to_json() for number, item in enumerate(exchanges(3, turns=1))]
    for row in rows:
        for place, answer in enumerate(row["answers"]):
            answer |= {"rating": 6 - place, "scores": {"rm": 1.0 * place}, "critique": "Ask more."}
        row["verdicts"] = [{"a": 0, "b": 1, "preferred": "a"}]
    write_rows(w / "rated.jsonl", rows)
    write_rows(w / "plain.jsonl", [{"prompt": f"hello {n}", "answers": ["be kind"]} for n in range(4)])
    for name in ("first", "second"):
        answered = {"prompt": "Human: q\n\nAssistant:", "greedy": name, "ppl": 1.0}
        write_rows(w / f"{name}.jsonl", [{**answered, "prompt": f"Human: q{n}\n\nAssistant:"} for n in range(3)])
    (w / "pairs").mkdir()
    for split in ("train", "test"):
        prompts = [f"{split} {n}" for n in range(30)]
        write_rows(w / "pairs" / f"{split}.jsonl", [{"prompt": p, "chosen": "yes", "rejected": "no"} for p in prompts])
    (w / "tutor").mkdir()
    (w / "pipeline" / "sft").mkdir(parents=True)
    write_rows(w / "pipeline" / "sft" / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    rows = [conversation(f"{n}", f"q{n}", turn(), "It needs ATP.", turn("b")) for n in range(4)]
    (w / "tutor/bio-dataset-1.json").write_text(json.dumps(rows))
    coded = str(turn()).replace('"', '""')
    (w / "responses.csv").write_text(f'prompt,response,gpt\np,no object,"{coded}"\n')
    (w / "coded.csv").write_text(f'prompt,response,gpt\nStudent: p,no object,"{coded}"\n')
    turns = {"prompt": ["System: Teach. Student: p\n\nTutorbot:"], "chosen": [str(turn())]}
    (w / "turns.json").write_text(json.dumps(turns))
    (w / "rankings.csv").write_text("q,,a pear,an apple,(b)\n")
    (w / "outputs.json").write_text('[{"instruction": "q", "output": "a", "generator": "m"}]')
    (w / "annotations.json").write_text('[{"instruction": "q", "output_1": "b", "output_2": "a", "preference": 2}]')
    Ledger(w / "ledger").close()
    (w / "text.txt").write_text("the cat sat on the mat and the dog sat on the log\n" * 50)
    lm_folder(w / "lm")
    rm_folder(w / "rm")
    return w


@pytest.fixture
def start(world, tmp_path, url, capsys):
    """start(name, *words, output) -> (exit code, its one error line)."""

    def run(name, *words, output=None):
        program = PROGRAMS[name]
        path, *given = program.words.format(w=world, o=tmp_path, url=url).split()
        named = [program.flag, output or tmp_path / program.output] if program.flag else []
        code = in_process.run(ROOT / path, *given, *named, *words)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code == 2)
        return code, "".join(errors)

    return run


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_its_own_output_is_replaced(name, start, world, tmp_path):
    program = PROGRAMS[name]
    path = tmp_path / program.output
    if program.takes:
        shutil.copytree(world / program.takes, path)
    file = path / program.file if program.file else path
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = program.words.split()[0].rsplit("/")[-1]

    file.write_text("{}")  # not written by the program
    code, line = start(name)
    assert (
        code == 2 and f"{file} has no record that {writer} wrote it; give another --" in line and "--overwrite" in line
    )
    assert file.read_text() == "{}"
    assert start(name, "--overwrite") == (0, "") and file.read_bytes() != b"{}"
    assert start(name) == (0, "")  # its own

    changed = file.read_bytes() + b"\n"
    file.write_bytes(changed)
    code, line = start(name)
    assert code == 2 and f"{file} has been changed since {writer} wrote it" in line
    assert file.read_bytes() == changed
    assert start(name, "--overwrite")[0] == start(name)[0] == 0
    file.unlink()
    assert start(name)[0] == 0 and file.exists()


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.input])
def test_an_output_is_never_an_input(name, start, world, tmp_path):
    given = world / PROGRAMS[name].input
    inside = sorted(file for file in (given, *given.glob("*")) if file.is_file())
    before = [file.read_bytes() for file in inside]
    links = [tmp_path / f"link{given.suffix}", tmp_path / f"same{given.suffix}"]
    links[0].symlink_to(given)
    if given.is_file():
        os.link(given, links[1])
    for output in (given, *(link for link in links if link.exists())):
        for words in ((), ("--overwrite",)):
            code, line = start(name, *words, output=output)
            assert code == 2 and ("input" in line or "lies in" in line), line
    assert [file.read_bytes() for file in inside] == before


def test_every_program_is_among_these():
    folders = (ROOT / "data_collect", ROOT / "inference", *(ROOT / "training").glob("step*"))
    programs = {file.name for folder in folders for file in folder.glob("*.py")}
    assert programs == NOT_HERE | {program.words.split()[0].rsplit("/")[-1] for program in PROGRAMS.values()}


def test_an_input_of_the_same_folder_as_the_output_is_no_input(start, world, tmp_path):
    """New files beside those that are read are no harm, again and again; a folder that is read may hold none."""
    shutil.copytree(world / "lm", tmp_path / "lm")
    words = ["--model_name_or_path", tmp_path / "lm", "--data_path", world / "plain.jsonl", "--template", "plain"]
    words += ["--max_new_tokens", "2"]
    words = [ROOT / "inference/chatbot.py", "--mode", "generate", *words, "--output_path", tmp_path / "lm/a.jsonl"]
    assert in_process.run(*words) == in_process.run(*words) == 0
    assert "lies in" in start("convert a folder", output=world / "pairs" / "new")[1]


def test_outputs_of_one_command_differ(start, tmp_path):
    same = tmp_path / "p.txt"
    assert f"--summary {same} is another output of this command" in start("gather_prompts --summary", output=same)[1]
    assert f"--output_file {tmp_path / 'x'} is an input" in start("request", "--ledger", tmp_path / "x",
                                                                   output=tmp_path / "x")[1]  # fmt: skip
    assert f"--json {tmp_path} is a folder; expected the name of a file" in start("consistency", output=tmp_path)[1]


def test_a_tokenizer_never_goes_beside_weights(start, world, tmp_path):
    shutil.copytree(world / "lm", tmp_path / "lm")
    for words in ((), ("--overwrite",)):
        assert "a model was trained with the tokenizer beside it" in start("train_tokenizer", *words,
                                                                            output=tmp_path / "lm")[1]  # fmt: skip


def test_the_oracle_replaces_no_foreign_file(tmp_path, capsys):
    mine = tmp_path / "README.md"
    mine.write_text("mine")
    assert in_process.run(ROOT / "data_collect/oracle_server.py", "--port", 0, "--url_file", mine) == 2
    assert (
        f"{mine} has no record that oracle_server.py wrote it" in capsys.readouterr().err and mine.read_text() == "mine"
    )


def test_outputs_from_before_there_were_records(start, tmp_path):
    """Those of chatbot.py have a file beside them that says what made them; others need --overwrite once, and other
    programs always."""
    assert start("chatbot generate")[0] == start("group", output=tmp_path / "g.txt")[0] == 0
    for hidden in tmp_path.glob(".*.plumbline.json"):
        hidden.unlink()
    assert start("rerank")[0] == start("group", output=tmp_path / "g.txt")[0] == 2
    assert start("chatbot generate") == (0, "")


def test_a_kill_between_record_and_file_leaves_both_its_own(tmp_path):
    """The record is written first. Whatever of the two renames took place, the file is known."""
    path, partial = tmp_path / "x", tmp_path / "partial"
    for text in ("one", "two"):
        outputs.claim("me.py", {"--out": path})
        partial.write_text(text)
        provenance.move(partial, path)
    outputs.claim("me.py", {"--out": path})
    path.write_text("one")  # as if "two" had not got there
    outputs.claim("me.py", {"--out": path})
    path.write_text("mine")
    with pytest.raises(UserError, match="has been changed since me.py wrote it"):
        outputs.claim("me.py", {"--out": path})
    with pytest.raises(UserError, match="was not written by you.py but by me.py"):
        outputs.claim("you.py", {"--out": path})


# ------------------------------------------------------------------------------------------------ runs of the stages


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    toy_model(folder / "model")
    toy_data(folder / "pairs", 8)
    demonstrations(folder / "demos", 8)
    return folder


@pytest.fixture
def train(toys, tmp_path, capsys):
    """train(stage, out, *flags) -> (exit code, what it said)."""

    def run(stage, out, *flags, model=toys / "model", data=None):
        data = data or toys / ("demos" if stage == SFT else "pairs")
        reward = ("--reward_model_name_or_path", toys / "model") if stage == PPO else ()
        short = ("--max_steps", "1", "--num_train_epochs", "1", "--eval_every", "never")
        code = in_process.run_stage(stage, model, data, out, toys / "cache", *map(str, (*short, *reward, *flags)))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.parametrize("stage", [SFT, REWARD, DPO, PPO])
def test_a_stage_writes_into_no_foreign_folder(stage, train, toys, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    code, said = train(stage, out)
    assert code == 2 and f"{out} holds config.json, which was not written by {stage}/main.py" in said
    (out / ".plumbline.json").write_text('{"program": "other.py"}')
    assert "was not written by" in train(stage, out)[1]
    for words in ((), ("--overwrite",)):  # not even then
        before = {file: file.read_bytes() for file in (toys / "model").iterdir()}
        assert "which this command reads" in train(stage, toys / "model", *words)[1]
        assert "which this command reads" in train(stage, toys, *words)[1]
        assert "lies in" in train(stage, toys / "pairs/out", *words, data=toys / "pairs")[1]
        assert before == {file: file.read_bytes() for file in (toys / "model").iterdir()}
    assert {file.name for file in out.iterdir()} == {"config.json", ".plumbline.json"}


def test_a_run_goes_on_and_another_begins_anew(train, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    (out / "model-00001-of-00002.safetensors").write_text("half of another model")
    assert train(SFT, out, "--overwrite", "--save_every", "1")[0] == 0
    assert not (out / "model-00001-of-00002.safetensors").exists()  # transformers might have read it first
    model = (out / "model.safetensors").read_bytes()
    for words in ((), ("--overwrite",)):  # the very run that it holds
        assert "already finished" in train(SFT, out, "--save_every", "1", *words)[1]
    code, said = train(SFT, out, "--seed", "1")
    assert code == 2 and "(--save_every 1, now never); give the same options" in said and "or --overwrite" in said
    assert (out / "step-1").is_dir() and (out / "model.safetensors").read_bytes() == model
    assert train(SFT, out, "--learning_rate", "0.5", "--overwrite")[0] == 0
    assert not (out / "step-1").exists() and (out / "model.safetensors").read_bytes() != model
    assert train(REWARD, out)[0] == 2
    (out / ".plumbline.json").unlink()  # a run from before there were records
    assert "already finished" in train(SFT, out, "--learning_rate", "0.5")[1]


def test_a_script_refuses_before_it_writes(toys, tmp_path):
    """launch.sh would copy the script into the folder and begin train.log."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words = [ROOT / "training/step1_sft/main.py", "--model_name_or_path", toys / "model", "--data_path", toys / "demos"]
    check = lambda folder, *more: in_process.run(ROOT / "training/preflight.py", *words, "--output_dir", folder, *more)  # noqa: E731
    assert check(out) == 2 and check(toys / "model", "--", "--overwrite") == 2
    assert check(out, "--", "--overwrite") == 0 and check(tmp_path / "new") == 0
    (out / "notes.txt").rename(out / "train.log")
    assert check(out) == 0
    assert [file.name for file in out.iterdir()] == ["train.log"] and not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------------ repeated ids


def test_an_id_names_one_prompt(start, tmp_path, capsys):
    ask = lambda text, answer: {"id": "17", "prompt": text, "answers": [{"text": answer}, {"text": "no"}],  # noqa: E731
                                "verdicts": [{"a": 0, "b": 1, "preferred": "a"}]}  # fmt: skip
    data = write_rows(tmp_path / "d.jsonl", [ask("one", "yes"), ask("two", "yes")])
    told = f"{data}:2: the id '17' is that of {data}:1, too, which has another prompt"
    pairs = [ROOT / "data_collect/pairs.py", "--data_path", data, "--output_dir", tmp_path / "sets"]
    chatbot = [ROOT / "inference/chatbot.py", "--mode", "generate", "--data_path", data, "--model_name_or_path", "none"]
    for words in (pairs, chatbot):
        assert in_process.run(*words) == 2 and told in capsys.readouterr().err
    assert in_process.run(*pairs, "--on_bad_row", "skip") == 0 and "1 bad rows" in capsys.readouterr().out
    write_rows(data, [ask("one", "yes"), ask("one", "yes"), ask("one", "perhaps")])  # repeated, and sampled again
    assert in_process.run(*pairs) == 0


def test_the_report_matches_answers_by_id(tmp_path):
    from utils.report.pipeline import by_id

    rows = [
        Record((Message("user", "one"),), id="x", where="f:1"),
        Record((Message("user", "one"),), id="x", where="f:2"),
    ]
    with pytest.raises(UserError, match="f:2: the id 'x' is that of f:1, too; expected it once"):
        by_id(rows)
