"""Text in, the folder of a small Llama out: a sentencepiece tokenizer trained on the text, and a config.json.

    python data_collect/train_tokenizer.py --data_path stories.txt pairs.csv --output_dir output/tiny

Stage 1 trains it from random weights: --model_name_or_path output/tiny --from_scratch.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.model.from_scratch import MODEL_FILES, make_model_folder
from utils.outputs import claim
from utils.raw_datasets.sources import Files, OnBad, Rows, file_rows, open_source
from utils.raw_datasets.spec import Spec
from utils.reporting import progress, run_program, say

# Fields of a row that hold names, not text: pieces for them would be wasted.
NAMES = {"id", "role", "from", "model", "judge", "order", "preferred"}


@dataclass
class TokenizerArguments:
    data_path: list[str] = required(
        "texts; data sets, each [CLASS:]PATH_OR_NAME (docs/data.md): every string is text; or .txt, a text a line",
        title="Files",
    )
    output_dir: str = required("folder for the tokenizer and the config.json")
    vocab_size: int = option(
        8192, help="pieces of the tokenizer; 263 are bytes, special tokens and punctuation", title="Tokenizer and model"
    )
    hidden_size: int = option(256, help="width of the model")
    num_hidden_layers: int = option(4, help="layers of the model")
    num_attention_heads: int = option(4, help="attention heads of the model")
    max_position_embeddings: int = option(1024, help="longest row in tokens")
    overwrite: bool = overwriting(title="Files")


def main(argv: list[str] | None = None) -> None:
    """Train a tokenizer."""
    (args,) = parse([TokenizerArguments], argv, description=__doc__)
    folder = Path(args.output_dir)
    # Weights are tied to the pieces of their tokenizer: another one would make them useless.
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if weights:
        raise UserError(f"{weights[0]}: a model was trained with the tokenizer beside it; give another --output_dir")
    files = [folder / name for name in MODEL_FILES]
    reads = [Spec.unweighted(path).path for path in args.data_path]
    claim("train_tokenizer.py", {"--output_dir": files}, reads=reads, overwrite=args.overwrite)
    texts: list[str] = []
    with progress("reading", len(args.data_path)) as advance:
        for path in args.data_path:
            texts += read_texts(path)
            advance()
    say(f"training a tokenizer on {len(texts)} texts, {sum(map(len, texts))} characters")
    sizes = {name: getattr(args, name) for name in SIZES}
    size = make_model_folder(texts, folder, args.vocab_size, **sizes)
    say(f"{args.output_dir}: {size} pieces")


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")


def read_texts(data_path: str) -> list[str]:
    """Read the texts of one [CLASS:]PATH_OR_NAME: the strings of its rows, or the lines of a file of plain text. Of a
    data set with a test split the training split alone is read. Raises UserError."""
    spec = Spec.unweighted(data_path)
    source = open_source(spec.path)
    read = (spec.cls and spec.cls.read) or _file_rows
    # Only files have a reader of their own; a Hugging Face data set comes as rows.
    if not isinstance(source, Files):
        read = None
    rows = source.rows(not source.has_train, read=read)
    return [text for row, _ in rows for text in _strings(row) if text.strip()]


def _file_rows(path: Path, on_bad: OnBad | None) -> Rows:
    if path.suffix != ".txt" or _is_json(path):
        yield from file_rows(path, on_bad)
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from error
    yield from ((line, f"{path}:{number}") for number, line in enumerate(lines, start=1))


def _is_json(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] in (b"{", b"[")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in NAMES:
                yield from _strings(item)


if __name__ == "__main__":
    run_program(main)
