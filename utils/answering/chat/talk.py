"""Questions and answers, one after another, and the commands between them."""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.answering.chat.lines import KEYS, EditedLines, PipedLines, open_lines
from utils.answering.chat.streaming import AnswerStream
from utils.answering.chat.transcript import Transcript
from utils.answering.rows import output_file
from utils.errors import UserError
from utils.generation import check_positions, complete, generating
from utils.generation.sampling import Sampling
from utils.records import Answer, Message, Record, RecordError
from utils.reporting import console, say

COMMANDS = {
    "/system TEXT": "start over with this system message; without TEXT, with none",
    "/reset": "start over; the system message stays",
    "/save FILE": "write the conversation as records, which every program reads as data",
    "/help": "show this list",
    "/quit": "leave",
}
PROBE = "Sprobe7"  # a word that no template contains


class Talk:
    """A person, a language model, and perhaps a reward model that scores every answer. reader, judge: their
    answering.Reader. Raises UserError when the model has no room for a prompt, or its template for `system`."""

    def __init__(
        self, reader: Any, sampling: Sampling, *, max_prompt_seq_len: int, system: str = "", judge: Any = None
    ) -> None:
        self.reader, self.sampling, self.judge = reader, sampling, judge
        check_positions(reader.model, 1, sampling.max_new_tokens)
        positions = getattr(reader.model.config.get_text_config(), "max_position_embeddings", None)
        room = positions - sampling.max_new_tokens if positions else max_prompt_seq_len
        self.longest_prompt = min(max_prompt_seq_len, room)
        self.asked = 0  # questions so far; each is answered with a seed of its own
        self.commands = {"/system": self.instruct, "/reset": self.reset, "/save": self.save, "/help": self.help}
        self.begin(system)

    def run(self) -> None:
        """Answer and obey until the person leaves. A mistake is one line at a terminal; from a pipe it ends the run."""
        self.warm_up()
        say(f"{self.reader.name}\n{' · '.join(COMMANDS)}", style="dim")
        lines = open_lines()
        while (line := next_line(lines)) is not None:
            try:
                self.take(line)
            except KeyboardInterrupt:
                say("stopped", style="dim")
            except UserError as error:
                if not lines.interactive:
                    raise
                say(f"error: {error}", style="red")
        unsaved = self.transcript.unsaved
        say(f"end of the conversation{f'; {unsaved} of its answers not saved' if unsaved else ''}", style="dim")

    def take(self, line: str) -> None:
        """Obey a command, or answer a question."""
        word, *rest = line.split(maxsplit=1)
        if word in self.commands:
            self.commands[word]("".join(rest).strip())
        elif word.startswith("/"):
            say(f"{word} is no command", style="dim")
            self.help()
        else:
            self.ask(line)

    # ---- questions

    def warm_up(self) -> None:
        """Write one token, so that whatever generation says at its start is said before the first answer."""
        prompt = self.reader.renderer.prompt_ids([Message("user", "Hello")])
        self.reader.answers([prompt], [0], [Sampling(max_new_tokens=1, temperature=0)])

    def ask(self, question: str) -> None:
        """Answer on the screen, and score the answer. One stopped by Ctrl-C counts as far as it came."""
        prompt = self.transcript.prompt(question)
        answer = self.answer(prompt)
        if not answer.text and not answer.finished:
            say("stopped before its first word; the question is forgotten", style="dim")
            return
        try:
            answer = self.scored(prompt, answer)
        finally:  # Ctrl-C, or a judge that cannot read it, costs the score alone
            self.transcript.add(prompt, answer)

    def answer(self, prompt: tuple[Message, ...]) -> Answer:
        """Write an answer on the screen, until it ends or Ctrl-C stops it."""
        reader = self.reader
        self.asked += 1
        how = dataclasses.replace(self.sampling, seed=self.sampling.seed + self.asked)
        cut = reader.tally.counts.total()
        ids = reader.prompt(Record(prompt), self.longest_prompt, "drop_turns")
        if reader.tally.counts.total() > cut and not self.shortened:
            self.shortened = True
            say(f"the conversation exceeds {self.longest_prompt} tokens: the model no longer reads its oldest turns",
                style="dim")  # fmt: skip
        stream = AnswerStream(reader.renderer, [*reader.renderer.stop_strings, *how.stop_strings])
        finished = False
        console.print("[bold green]model ›[/] ", end="")
        try:
            with generating(reader.model):
                ((completion,),) = complete(
                    reader.model, reader.renderer, [ids], how, [0], backend=reader.backend, stream=stream.add
                )
            stream.show(completion.text)
            text, finished = completion.text, completion.finished
        except KeyboardInterrupt:
            text = stream.text
        finally:
            console.print()
        return Answer(text, reader.name, how.to_json(), finished)

    def scored(self, prompt: tuple[Message, ...], answer: Answer) -> Answer:
        """Show the reward model's score, if there is one, and return the answer with it."""
        if not self.judge:
            return answer
        ((score,),) = self.judge.scores([Record(prompt, (answer,))], max_seq_len=0)
        say(f"score {score:.3f}", style="magenta")
        return dataclasses.replace(answer, scores={self.judge.name: score})

    # ---- commands

    def begin(self, system: str) -> None:
        """Forget what was said, and give every model this system message."""
        for reader in (self.reader, self.judge):
            if system and reader:
                require_system_role(reader.renderer)
        self.transcript, self.shortened = Transcript(system), False

    def instruct(self, system: str) -> None:
        self.begin(system)
        say(f"a new conversation{f'; the model is told: {system}' if system else ''}", style="dim")

    def reset(self, _: str = "") -> None:
        self.instruct(self.transcript.system)

    def save(self, file: str) -> None:
        if not file:
            raise UserError("/save needs the name of a file, as in /save talk.jsonl")
        path = output_file(file, ["conversation"], "chat")
        self.transcript.save(path)
        say(f"written to {path}, records: {len(self.transcript.records)}", style="dim")

    def help(self, _: str = "") -> None:
        for name, meaning in {**COMMANDS, **KEYS}.items():
            say(f"  {name:<14}{meaning}", style="dim")


def next_line(lines: EditedLines | PipedLines) -> str | None:
    """A line that is not empty; None when the person leaves."""
    while True:
        try:
            line = lines.read()
        except (EOFError, KeyboardInterrupt):
            return None
        if line.strip():
            return None if line.strip() == "/quit" else line


def require_system_role(renderer: Any) -> None:
    """Raise UserError for a template that refuses a system message, or leaves it out."""
    try:
        record = Record((Message("system", PROBE), Message("user", "Hello")))
        taken, reason = PROBE in renderer.render(record, ()).prompt, "it leaves the system message out"
    except RecordError as error:
        taken, reason = False, str(error)
    if not taken:
        raise UserError(f"{renderer.name} has no system role ({reason}); leave the system message out, "
                        "or give --template another")  # fmt: skip
