"""chatbot.py --mode chat at a real terminal: its keys, its commands, and what it saves."""

import io
import re
import subprocess
import sys

import pytest
from chats import HUMAN, chat, models, one_thread  # noqa: F401 (fixtures)
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, UP, Terminal
from toy_folders import command, lm_folder, quiet_environment, rm_folder, toy_tokenizer

from utils.answering.chat.conversation import Conversation, require_system_role
from utils.answering.chat.lines import EditedLines
from utils.answering.chat.streaming import AnswerStream
from utils.answering.chat.transcript import Transcript
from utils.answering.inference_model import InferenceModel
from utils.arguments.inference import ReaderArguments
from utils.errors import UserError
from utils.generation.sampling import Sampling
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message
from utils.records.files import read_records
from utils.tokens.templates import Renderer

YOU = r"you › $"  # the prompt, and nothing after it


def words(folder, *more):
    rewards = ["--reward_model_name_or_path", folder / "rm"]
    return command(
        "inference/chatbot.py", "--mode", "chat", "--model_name_or_path", folder / "lm", *HUMAN, *rewards, *more
    )


def test_keys_and_commands_at_a_terminal(folder, tmp_path):
    """Several lines, history, the score of each answer, a file that is read as data, mistakes in one line, Ctrl-D."""
    (tmp_path / "other.jsonl").write_text("written by hand\n")
    with Terminal(words(folder, "--max_new_tokens", 6, "--system", "be kind"), quiet_environment(), tmp_path) as talk:
        start = talk.wait_for(YOU).string
        assert start.index("generation: shared") < start.index("you ›"), "it would fall into the first answer"
        talk.type("hello" + ALT_ENTER + "there" + ENTER)
        talk.wait_for(r"model › .*\nscore -?\d+\.\d{3}\n.*you › $")
        talk.type(UP + UP + ENTER)  # through the lines of the last question, no further back: it is asked again
        talk.wait_for(r"there.*score.*you › $")
        for line, answer in [
            ("/save talk", "written to talk.jsonl, records: 2"),
            ("/save talk.jsonl", "written to talk.jsonl, records: 2"),
            ("/save other.jsonl", "error: other.jsonl exists and this conversation did not write it"),
            ("/what", "/what is no command.*/save FILE .*Alt-Enter "),
            ("/reset", "a new conversation; the model is told: be kind"),
            ("/save talk.jsonl", "error: nothing to save"),
            ("five", r"score"),
            ("/save talk.jsonl", "error: talk.jsonl exists and this conversation did not write it"),
            ("/save second.jsonl", "written to second.jsonl, records: 1"),
        ]:
            talk.type(line + ENTER)
            talk.wait_for(answer + r".*you › $")
        talk.type(CTRL_D)
        assert talk.end() == 0 and talk.screen.rstrip().endswith("end of the conversation")
    assert (tmp_path / "other.jsonl").read_text() == "written by hand\n"
    first, second = records_of(str(tmp_path / "talk.jsonl"))
    assert [m.content for m in first.prompt] == ["be kind", "hello\nthere"] and first.prompt[0].role == "system"
    assert second.prompt == (*first.prompt, Message("assistant", first.answers[0].text), first.prompt[1])
    assert set(second.answers[0].scores) == {f"{folder.name}/rm"} and second.answers[0].finished is False
    (alone,) = read_records(tmp_path / "second.jsonl")
    assert [m.content for m in alone.prompt] == ["be kind", "five"], "/reset forgot too much or too little"


def test_ctrl_c_stops_an_answer_then_the_talk(folder, tmp_path):
    """The answer would take minutes; what was written of it stays in the conversation."""
    long = tmp_path / "models"
    lm_folder(long / "lm", max_position_embeddings=100_000)
    (long / "rm").symlink_to(folder / "rm")
    endless = words(long, "--max_new_tokens", 50_000, "--min_new_tokens", 50_000, "--max_prompt_seq_len", 200)
    with Terminal(endless, quiet_environment(), tmp_path) as talk:
        talk.wait_for(YOU)
        for _ in range(2):
            talk.type("hello" + ENTER)
            talk.wait_for(r"model › .{20}")
            talk.type(CTRL_C)
            talk.wait_for(r"score.*you › $")
        talk.type("/save talk.jsonl" + ENTER)
        talk.wait_for(r"records: 2.*you › $")
        talk.type("/reset" + ENTER)
        talk.wait_for(r"new conversation.*you › $")
        talk.type(CTRL_C)
        assert talk.end() == 0
    assert talk.screen.rstrip().endswith("end of the conversation") and "Traceback" not in talk.screen
    first, second = read_records(tmp_path / "talk.jsonl")
    assert len(first.answers[0].text) >= 15 and first.answers[0].finished is False
    assert second.prompt[1] == Message("assistant", first.answers[0].text)


def test_an_answer_that_cannot_be_scored_stays_in_the_conversation(folder, tmp_path):
    """The judge's template takes one question; the score of the second fails, and the talk goes on from its answer."""
    rm_folder(tmp_path / "rm")
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{% if messages|length > 2 %}{{ raise_exception('one question') }}{% endif %}" + TURNS
    tokenizer.save_pretrained(tmp_path / "rm")
    reader = InferenceModel(ReaderArguments(str(folder / "lm"), template="human_assistant"))
    judge = InferenceModel(ReaderArguments(str(tmp_path / "rm")), reward=True)
    talk = Conversation(reader, Sampling(max_new_tokens=4), max_prompt_seq_len=200, reward=judge)
    talk.ask("hello")
    with pytest.raises(UserError, match="one question"):
        talk.ask("five")
    first, second = talk.transcript.records
    assert first.answers[0].scores and not second.answers[0].scores
    assert talk.transcript.prompt("three")[2:4] == (second.prompt[2], Message("assistant", second.answers[0].text))


def test_ctrl_c_clears_a_line_that_is_begun_and_history_is_in_memory():
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        lines = EditedLines()
        keys.send_text("one" + ENTER + "begun" + CTRL_C + "two" + ALT_ENTER + "more" + ENTER)
        assert [lines.read(), lines.read()] == ["one", "two\nmore"]
        keys.send_text(UP + UP + UP + ENTER + CTRL_C)
        assert lines.read() == "one"
        with pytest.raises(KeyboardInterrupt):
            lines.read()
        keys.send_text(CTRL_D)
        with pytest.raises(EOFError):
            lines.read()
        assert type(lines._session.history).__name__ == "InMemoryHistory"


def test_a_file_is_replaced_only_if_this_conversation_wrote_it(tmp_path):
    talk, file = Transcript(), tmp_path / "talk.jsonl"
    talk.add(talk.prompt("a?"), Answer("b"))
    talk.save(file)
    talk.add(talk.prompt("c?"), Answer("d"))
    assert talk.unsaved == 1
    talk.save(file)
    assert talk.unsaved == 0 and [r.answers[0].text for r in read_records(file)] == ["b", "d"]
    file.write_text(file.read_text() + "\n")  # edited since
    for path, message in [(file, "exists and this conversation did not write it"), (tmp_path, "Is a directory")]:
        with pytest.raises(UserError, match=message):
            talk.save(path)
    assert [file.name] == [path.name for path in tmp_path.iterdir()]


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
TURNS = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
OPENS = "{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.mark.parametrize("start, reason", [(REFUSES, "System role not supported"), ("", "leaves the system message")])
def test_a_template_without_a_system_role_is_one_line(folder, tmp_path, start, reason):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = start + TURNS + OPENS
    with pytest.raises(UserError, match=f"has no system role .*{reason}.* or give --template"):
        require_system_role(Renderer(tokenizer))
    require_system_role(Renderer(tokenizer, "llama2"))
    lm_folder(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(UserError, match="has no system role"):
        chat("--mode", "chat", "--model_name_or_path", tmp_path / "lm", "--max_new_tokens", 4, "--system", "be kind")


@pytest.mark.parametrize(
    "typed, message", [(b"hello\n/save\nnever read\n", "/save needs the name"), (b"hello\n\xff\n", "not UTF-8 text")]
)
def test_from_a_pipe_a_mistake_ends_the_run(folder, monkeypatch, capsys, typed, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8", line_buffering=True))
    with pytest.raises(UserError, match=message):
        chat("--mode", "chat", "--model_name_or_path", folder / "lm", *HUMAN, "--max_new_tokens", 6)
    assert capsys.readouterr().out.count("model ›") <= 1


def test_a_transcript_from_a_pipe_shows_the_questions(folder, tmp_path):
    """As they are typed, with no markup or picture in them, each before its answer."""
    typed = "hello [bold]there[/bold] :smile:\n\n/reset\nfive\n"
    words = command("inference/chatbot.py", "--mode", "chat", "--model_name_or_path", folder / "lm", *HUMAN)
    done = subprocess.run(
        [*words, "--max_new_tokens", "3"], input=typed, capture_output=True, text=True, env=quiet_environment()
    )
    assert done.returncode == 0, done.stderr
    asked = (
        r"you › hello \[bold\]there\[/bold\] :smile:\nmodel › .*\nyou › \nyou › /reset\na new .*\nyou › five\nmodel › "
    )
    assert re.search(asked, done.stdout), done.stdout


def test_a_model_cannot_steer_the_terminal(capsys):
    renderer = Renderer(toy_tokenizer(), "plain")
    AnswerStream(renderer, []).show("a\x1b[2Jb\a :smile: [bold]c\nd")
    assert capsys.readouterr().out == "a[2Jb :smile: [bold]c\nd"


def test_a_conversation_longer_than_the_models_positions_goes_on(folder, monkeypatch, capsys):
    """256 positions, and about 40 tokens a turn: the model no longer reads the oldest, and prints one line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("what is two plus three? hello there, be kind\n" * 20))
    chat("--mode", "chat", "--model_name_or_path", folder / "lm", *HUMAN, "--max_new_tokens", 20)
    out = capsys.readouterr().out
    assert out.count("model ›") == 20 and out.count("the conversation exceeds 236 tokens") == 1
    assert "20 of its answers not saved" in out
