"""The built-in world on disk: demonstrations, prompts, teacher-written comparisons, and a small untrained Llama.

    python data_collect/make_world.py --output_dir output/tutor/world

sft/      demonstrations, a mixture of a strong and a weak teacher   pairs/  teachers compared, noisily
prompts/  for sampling answers                                       model/  tokenizer and config.json, no weights

No prompt is in two of the files. data_collect/oracle_server.py judges whatever is answered to them.
"""

from __future__ import annotations

import itertools
import random
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting
from utils.errors import UserError
from utils.model.from_scratch import MODEL_FILES, make_model_folder
from utils.outputs import claim
from utils.records import Answer, Message, Record, Verdict
from utils.records.files import write_jsonl
from utils.reporting import progress, run_program, say, write_json
from utils.world.exchanges import Exchange, draw_exchange, write_prompt
from utils.world.oracle import accuracy_ceiling, assess, prefer, preference_probability
from utils.world.teachers import TEACHERS


@dataclass
class WorldArguments:
    output_dir: str = option("output/tutor/world", help="folder of the world", title="World")
    num_demonstrations: int = option(12000, help="demonstrations for supervised fine-tuning")
    num_prompts: int = option(3000, help="prompts to sample answers for")
    num_pairs: int = option(1000, help="prompts with four teacher-written answers, compared")
    num_test: int = option(400, help="test rows of each kind")
    strong_share: float = option(0.5, help="share of demonstrations by the strong teacher")
    noise_temperature: float = option(
        0.7, help="noise of the comparisons; P(a over b) = sigmoid(gap in utility / temperature)"
    )
    seed: int = option(1234, help="seed of everything drawn")
    vocab_size: int = option(1024, help="pieces of the tokenizer", title="Tokenizer and model")
    hidden_size: int = option(192, help="width of the model")
    num_hidden_layers: int = option(4, help="layers of the model")
    num_attention_heads: int = option(6, help="attention heads of the model")
    overwrite: bool = overwriting(title="World")

    def __post_init__(self) -> None:
        for name in ("num_demonstrations", "num_prompts", "num_pairs", "num_test"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; expected 1 or more")
        if self.num_demonstrations + self.num_prompts + self.num_pairs + 3 * self.num_test > 50_000:
            raise UserError("the world has too few different prompts for so many rows; expected at most 50000 in all")
        if not 0 <= self.strong_share <= 1:
            raise UserError(f"--strong_share is {self.strong_share}; expected 0 to 1")
        if self.noise_temperature < 0:
            raise UserError(f"--noise_temperature is {self.noise_temperature}; expected 0 or more")


@dataclass
class World:
    """A source of records, which never draws the same prompt twice.

    Args:
        args: the program's options.
        rng: the one generator of all draws.
        seen: the prompts drawn so far.
        probabilities: P(a over b) of each decided comparison.
    """

    args: WorldArguments
    rng: random.Random
    seen: set = field(default_factory=set)
    probabilities: list[float] = field(default_factory=list)

    def exchange(self) -> tuple[Exchange, tuple[Message, ...]]:
        """Draw an exchange and its prompt."""
        while True:
            exchange = draw_exchange(self.rng)
            prompt = tuple(Message(*turn) for turn in write_prompt(exchange, self.rng))
            if prompt not in self.seen:
                self.seen.add(prompt)
                return exchange, prompt

    def demonstration(self) -> Record:
        """Draw a prompt with an answer of the strong or the weak teacher."""
        exchange, prompt = self.exchange()
        name = "weak"
        if self.rng.random() < self.args.strong_share:
            name = "strong"
        return Record(prompt, (self.answer(name, exchange),))

    def prompt(self) -> Record:
        """Draw a prompt without an answer."""
        _, prompt = self.exchange()
        return Record(prompt)

    def comparison(self) -> Record:
        """Draw a prompt with four answers, each by either teacher, every two compared."""
        exchange, prompt = self.exchange()
        answers = tuple(self.answer(self.rng.choice(list(TEACHERS)), exchange) for _ in range(4))
        assessed, noise = [assess(exchange, answer.text) for answer in answers], self.args.noise_temperature
        record = Record(prompt, answers)
        verdicts = []
        for a, b in itertools.combinations(range(len(answers)), 2):
            # The record's id keys the noise: a verdict depends on its prompt and answers, not on the order of draws.
            key = (record.id, a, b)
            preferred = prefer(assessed[a], assessed[b], noise, self.args.seed, *key)
            verdicts.append(Verdict(a, b, preferred, judge="oracle"))
            if preferred != "tie":
                probability = preference_probability(assessed[a].utility, assessed[b].utility, noise)
                self.probabilities.append(probability)
        return Record(prompt, answers, tuple(verdicts))

    def answer(self, name: str, exchange: Exchange) -> Answer:
        """Return a teacher's answer."""
        return Answer(TEACHERS[name](exchange, self.rng), model=name)


def main(argv: list[str] | None = None) -> None:
    """Write the world."""
    (args,) = parse([WorldArguments], argv, description=__doc__)
    folder, world = Path(args.output_dir), World(args, random.Random(args.seed))
    files = []
    for name in ("sft", "prompts", "pairs"):
        files += [folder / name / "train.jsonl", folder / name / "test.jsonl"]
    files += [folder / "world.json", *(folder / "model" / name for name in MODEL_FILES)]
    claim("make_world.py", {"--output_dir": files}, overwrite=args.overwrite)

    # 1. records
    sizes = {
        "sft": (world.demonstration, args.num_demonstrations),
        "prompts": (world.prompt, args.num_prompts),
        "pairs": (world.comparison, args.num_pairs),
    }
    texts: list[str] = []
    total = args.num_demonstrations + args.num_prompts + args.num_pairs + len(sizes) * args.num_test
    with progress("writing the world", total) as advance:
        for name, (draw, train) in sizes.items():
            for split, count in (("train", train), ("test", args.num_test)):
                records = list(_drawn(draw, count, advance))
                write_jsonl(folder / name / f"{split}.jsonl", records)
                # The tokenizer sees no test row.
                if split == "train":
                    for record in records:
                        texts += _texts(record)

    # 2. a tokenizer of its language, and the shape of a model
    pieces = make_model_folder(
        texts,
        folder / "model",
        args.vocab_size,
        hidden_size=args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
    )

    # 3. what was made
    ceiling = accuracy_ceiling(world.probabilities)
    summary = {
        "seed": args.seed,
        "noise_temperature": args.noise_temperature,
        "pairs_ceiling": ceiling,
        "pieces": pieces,
    }
    write_json(folder / "world.json", summary | {name: size for name, (_, size) in sizes.items()})
    say(f"{folder}: {args.num_demonstrations} demonstrations, {args.num_prompts} prompts, {args.num_pairs} prompts "
        f"with compared answers, and {args.num_test} test rows of each; {pieces} pieces")  # fmt: skip
    say(f"accuracy that the noise in pairs/ allows: {ceiling:.3f}")


def _drawn(draw: Callable[[], Record], count: int, advance: Callable[..., None]) -> Iterator[Record]:
    for _ in range(count):
        yield draw()
        advance()


def _texts(record: Record) -> list[str]:
    return [message.content for message in record.prompt] + [answer.text for answer in record.answers]


if __name__ == "__main__":
    run_program(main)
