"""A conversation: questions and answers, one after another, and the commands between them."""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.answering.chat.lines import KEYS, EditedLines, PipedLines, open_lines
from utils.answering.chat.streaming import AnswerStream
from utils.answering.chat.transcript import Transcript
from utils.answering.files import output_file
from utils.answering.inference_model import InferenceModel
from utils.errors import UserError
from utils.generation.generate import check_positions, complete, generating
from utils.generation.request import GenerationRequest
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
PROBE = "Sprobe7"  # no template contains this word


class Conversation:
    """A conversation of a person with a language model.

    Args:
        model: the language model.
        sampling: the settings of drawing; the seed of the first answer.
        max_prompt_seq_len: longest prompt in tokens; older turns are left out.
        system: a system message to begin with.
        reward: a reward model that scores every answer.

    Raises:
        UserError: the model has no positions for a prompt, or its template no system role for `system`.
    """

    def __init__(
        self,
        model: InferenceModel,
        sampling: Sampling,
        *,
        max_prompt_seq_len: int,
        system: str = "",
        reward: InferenceModel | None = None,
    ) -> None:
        self.model, self.sampling, self.reward = model, sampling, reward
        check_positions(model.model, 1, sampling.max_new_tokens)
        self.longest_prompt = max_prompt_seq_len
        positions = getattr(model.model.config.get_text_config(), "max_position_embeddings", None)
        if positions:
            self.longest_prompt = min(max_prompt_seq_len, positions - sampling.max_new_tokens)
        self.asked = 0  # questions so far; each is answered with a seed of its own
        self.commands = {"/system": self.instruct, "/reset": self.reset, "/save": self.save, "/help": self.help}
        self.begin(system)

    def run(self) -> None:
        """Answer questions and obey commands until the person leaves.

        At a terminal a mistake is printed as one line; from a pipe it ends the run.
        """
        self.warm_up()
        say(f"{self.model.name}\n{' · '.join(COMMANDS)}", style="dim")
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
        unsaved, lost = self.transcript.unsaved, ""
        if unsaved:
            lost = f"; {unsaved} of its answers not saved"
        say(f"end of the conversation{lost}", style="dim")

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
        """Write one token, so that what generation prints at its start comes before the first answer."""
        prompt = self.model.renderer.prompt_ids([Message("user", "Hello")])
        self.model.answers([prompt], [0], [Sampling(max_new_tokens=1, temperature=0)])

    def ask(self, question: str) -> None:
        """Answer on the screen, and score the answer. One that Ctrl-C stops is kept as far as it was written."""
        prompt = self.transcript.prompt(question)
        answer = self.answer(prompt)
        if not answer.text and not answer.finished:
            say("stopped before its first word; the question is forgotten", style="dim")
            return
        try:
            answer = self.scored(prompt, answer)
        finally:
            # Ctrl-C, or a reward model that cannot read the conversation, costs the score alone.
            self.transcript.add(prompt, answer)

    def answer(self, prompt: tuple[Message, ...]) -> Answer:
        """Write an answer on the screen, until it ends or Ctrl-C stops it."""
        model = self.model
        self.asked += 1
        sampling = dataclasses.replace(self.sampling, seed=self.sampling.seed + self.asked)
        cut = model.tally.counts.total()
        ids = model.prompt(Record(prompt), self.longest_prompt, "drop_turns")
        if model.tally.counts.total() > cut and not self.shortened:
            self.shortened = True
            say(f"the conversation exceeds {self.longest_prompt} tokens: the model no longer reads its oldest turns",
                style="dim")  # fmt: skip
        stream = AnswerStream(model.renderer, [*model.renderer.stop_strings, *sampling.stop_strings])
        request = GenerationRequest(model.renderer, [ids], sampling, stream=stream.add)
        finished = False
        console.print("[bold green]model ›[/] ", end="")
        try:
            with generating(model.model):
                ((completion,),) = complete(model.model, request, model.backend)
            stream.show(completion.text)
            text, finished = completion.text, completion.finished
        except KeyboardInterrupt:
            text = stream.text
        finally:
            console.print()
        return Answer(text, model.name, sampling.to_json(), finished=finished)

    def scored(self, prompt: tuple[Message, ...], answer: Answer) -> Answer:
        """Show the reward model's score, if there is one, and return the answer with it."""
        if not self.reward:
            return answer
        ((score,),) = self.reward.scores([Record(prompt, (answer,))], max_seq_len=0)
        say(f"score {score:.3f}", style="magenta")
        return dataclasses.replace(answer, scores={self.reward.name: score})

    # ---- commands

    def begin(self, system: str) -> None:
        """Forget the turns so far, and give every model this system message."""
        for model in (self.model, self.reward):
            if system and model:
                require_system_role(model.renderer)
        self.transcript, self.shortened = Transcript(system), False

    def instruct(self, system: str) -> None:
        """Start over with this system message."""
        self.begin(system)
        told = ""
        if system:
            told = f"; the model is told: {system}"
        say(f"a new conversation{told}", style="dim")

    def reset(self, _: str = "") -> None:
        """Start over with the same system message."""
        self.instruct(self.transcript.system)

    def save(self, file: str) -> None:
        """Write the conversation as records."""
        if not file:
            raise UserError("/save needs the name of a file, as in /save talk.jsonl")
        path = output_file(file, ["conversation"], "chat")
        self.transcript.save(path)
        say(f"written to {path}, records: {len(self.transcript.records)}", style="dim")

    def help(self, _: str = "") -> None:
        """Show commands and keys."""
        for name, meaning in {**COMMANDS, **KEYS}.items():
            say(f"  {name:<14}{meaning}", style="dim")


def next_line(lines: EditedLines | PipedLines) -> str | None:
    """Return the next line that is not empty, or None when the person leaves."""
    while True:
        try:
            line = lines.read()
        except (EOFError, KeyboardInterrupt):
            return None
        if line.strip():
            return None if line.strip() == "/quit" else line


def require_system_role(renderer: Any) -> None:
    """Raise UserError for a template that refuses a system message, or leaves it out."""
    reason = "it leaves the system message out"
    try:
        record = Record((Message("system", PROBE), Message("user", "Hello")))
        if PROBE in renderer.render(record, ()).prompt:
            return
    except RecordError as error:
        reason = str(error)
    raise UserError(
        f"{renderer.name} has no system role ({reason}); leave the system message out, or give --template another"
    )
