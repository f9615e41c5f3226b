"""The option groups that programs share. A stage's own group is in its main.py or in a module of its own here."""

from __future__ import annotations

# fmt: off
from dataclasses import dataclass
from typing import Literal, Optional

from utils.arguments.declarations import BELOW_ONE, NOT_NEGATIVE, expect, option, overwriting, required
from utils.errors import UserError

# Titles of --help that several groups share; a title may be taken up again further down, so that the order of the
# fields, which is that of args.json, need not be the order of the page.
DATA, RUN, MEMORY = "Data", "Run", "Precision, memory and devices"


@dataclass
class ModelArguments:
    """Options of the model to train."""

    model_name_or_path: str = required("model to start from; a Hugging Face name or a local folder", title="Model")
    tokenizer_name_or_path: Optional[str] = option(help="folder of the tokenizer; None: that of the model")
    from_scratch: bool = option(False, help="start from random weights; of the folder only config.json and the tokenizer are read")
    template: Optional[str] = option(help="prompt template; by its name in docs/data.md; None: the tokenizer's", first=True)
    # Two passes of one model are compared with each other: see refuse_dropout.
    dropout: float = option(0.0, help="dropout while training; preference stages need 0")
    gradient_checkpointing: bool = option(False, help="recompute activations to save memory; one more forward pass", title=MEMORY, first=True)
    lora_dim: int = option(0, help="rank of the LoRA adapter; 0 trains every weight", title="LoRA", first=True)
    lora_alpha: Optional[float] = option(help="scale of the adapter times its rank; None: 2 x rank")
    lora_dropout: float = option(0.0, help="dropout in front of the adapter")
    lora_target_modules: list[str] = option([], help="modules to adapt, by the end of their name; None: every linear layer but the head")
    only_optimize_lora: bool = option(True, help="train the adapter alone; off: the weights under it as well")
    merge_dtype: Optional[Literal["bf16", "fp32"]] = option(help="dtype of the saved weights with the adapter added in; bf16 loses changes under half its step, adapter/ keeps them; None: the run's")
    cache_dir: Optional[str] = option(help="folder of tokenised data and reference log-probs; None: output/cache", title=DATA)

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise UserError("--model_name_or_path is empty; expected a Hugging Face name or a local folder")
        expect(self, NOT_NEGATIVE, "lora_dim")
        expect(self, "above 0", "lora_alpha")
        expect(self, BELOW_ONE, "dropout", "lora_dropout")
        if self.lora_dim == 0 and (self.lora_alpha is not None or self.lora_dropout or self.lora_target_modules):
            raise UserError("--lora_alpha, --lora_dropout and --lora_target_modules need --lora_dim above 0")
        if self.lora_dim == 0 and self.merge_dtype is not None:
            raise UserError("--merge_dtype needs --lora_dim above 0: without an adapter nothing is merged")
        if self.lora_dim == 0 and not self.only_optimize_lora:
            raise UserError("--only_optimize_lora False needs --lora_dim above 0")


@dataclass
class DataArguments:
    """Options of the data and how it is read."""

    data_path: list[str] = required("data sets to train on; each [CLASS:]PATH_OR_NAME[=WEIGHT|=Nrows] (docs/data.md)", title=DATA)
    eval_data_path: list[str] = option([], help="evaluation data; in the form of --data_path; None: test splits of --data_path", first=True)
    data_split: Optional[str] = option(help="shares of SFT, reward model and step 3, as 2,4,4; None: each stage reads everything")
    columns: list[str] = option([], help="column names of the data as OURS=THEIRS; e.g. prompt=question chosen=good")
    max_prompt_seq_len: int = option(512, help="longest prompt in tokens", first=True)
    max_answer_seq_len: int = option(512, help="longest answer in tokens; the stop token counts", first=True)
    model_max_length: Optional[int] = option(help="longest prompt and answer together; None: the two limits added")
    truncation: Literal["keep_end", "keep_start", "drop_turns", "drop"] = option("keep_end", help="what to do with a prompt that is too long; an answer always loses its end, and its stop token")
    train_on: Literal["last", "all"] = option("last", help="SFT: learn the last assistant turn, or every one")
    on_bad_row: Literal["error", "skip"] = option("error", help="a row that cannot be read stops the run, or is counted")
    data_fraction: float = option(1.0, help="share of the training rows to use, from the front")
    max_train_samples: Optional[int] = option(help="most training rows to use; None: all")
    max_eval_samples: Optional[int] = option(help="most evaluation rows to use; None: all")
    eval_holdout: float = option(0.05, help="share of prompts held out for evaluation when a data set has no test split")
    rebuild_cache: bool = option(False, help="tokenise again even if the cache has this data")

    def __post_init__(self) -> None:
        expect(self, "1 or more", "max_prompt_seq_len", "max_answer_seq_len", "model_max_length")
        expect(self, "1 or more", "max_train_samples", "max_eval_samples")
        expect(self, "above 0 and at most 1", "data_fraction")
        expect(self, BELOW_ONE, "eval_holdout")

    @property
    def max_length(self) -> int:
        """Return the longest prompt and answer together, in tokens."""
        return self.model_max_length or self.max_prompt_seq_len + self.max_answer_seq_len


Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]


@dataclass
class TrainingArguments:
    """Options of a training run."""

    output_dir: str = required("folder of the run; it gets the model, metrics.jsonl, args.json and checkpoints", title=RUN)
    run_name: Optional[str] = option(help="name in TensorBoard and wandb; None: the name of --output_dir")
    per_device_train_batch_size: int = option(8, help="prompts in a forward pass of a device; each with all its answers", title="Batches", first=True)
    per_device_eval_batch_size: int = option(16, help="the same, in evaluation and the reference pass")
    gradient_accumulation_steps: Optional[int] = option(help="forward passes per optimizer step; None: 1, or what --global_batch_size needs")
    global_batch_size: Optional[int] = option(help="prompts per optimizer step; over all devices, instead of --gradient_accumulation_steps; None: batch x steps x devices", first=True)
    tokens_per_micro_batch: int = option(0, help="tokens in a forward pass; instead of a count of prompts, and a prompt with many answers is split; 0: by count")
    tokens_per_eval_batch: int = option(16_384, help="most tokens of a forward pass in evaluation, scoring and the reference; a prompt with many answers is split; 0: no limit")
    learning_rate: float = option(1e-5, help="peak learning rate", title="Optimizer and schedule", first=True)
    weight_decay: float = option(0.0, help="AdamW weight decay; not of biases and norms")
    adam_beta1: float = option(0.9, help="AdamW beta 1")
    # DeepSpeed-Chat's value; torch's is 0.999.
    adam_beta2: float = option(0.95, help="AdamW beta 2")
    lr_scheduler_type: Schedule = option("cosine", help="how the rate changes after the warm-up; names as in transformers.get_scheduler")
    warmup_steps: int = option(0, help="optimizer steps of warm-up")
    warmup_ratio: float = option(0.0, help="the same as a share of all steps")
    num_train_epochs: float = option(1.0, help="passes over the data", first=True)
    # -1 and not None: the name and value of transformers.TrainingArguments, which people know.
    max_steps: int = option(-1, help="most optimizer steps; -1: every epoch", first=True)
    # DeepSpeed clips to 1.0 unless its configuration has a value, so it always gets this one.
    gradient_clipping: float = option(1.0, help="largest gradient norm; 0 does not clip")
    ema_decay: float = option(0.0, help="keep an exponential moving average of the weights; in float32, 4 bytes each, shared out as ZeRO shares the optimizer's; saved in ema/; 0: off")
    bf16: bool = option(False, help="train in bfloat16; master weights stay float32; needs --zero_stage 1 or more", title=MEMORY, first=True)
    tf32: bool = option(False, help="allow TF32 in float32 matrix products on GPUs that have it")
    zero_stage: Literal[0, 1, 2, 3] = option(0, help="what ZeRO shards; 0: nothing, 1: optimizer states, 2: and gradients, 3: and weights", first=True)
    deterministic: bool = option(False, help="GPUs: kernels that add up in a fixed order; slower, but only so does a resumed run end with the same bits (else it agrees to rounding). CPUs always do")
    offload: bool = option(False, help="keep optimizer states in CPU memory; weights too at ZeRO-3")
    deepspeed: Optional[str] = option(help="DeepSpeed JSON to use instead of ds_configs/; --zero_stage and --offload then come from it")
    seed: int = option(42, help="seed of the run; of data order, initialisation and dropout", title=RUN, first=True)
    logging_steps: int = option(10, help="optimizer steps between printed lines; metrics.jsonl has every step", title="Evaluation, checkpoints and logs")
    eval_every: str = option("epoch", help="when to evaluate; `epoch`, `epoch_K` (K epochs), N steps, or `never`", first=True)
    # Whole models are large: none is kept beside the last one unless it is wanted.
    save_every: str = option("never", help="when to save a loadable folder epoch-N/ or step-N/; as --eval_every")
    checkpoint_every: int = option(200, help="steps between checkpoints to resume from; one more ends each epoch; 0: none", first=True)
    keep_last: int = option(1, help="how many of those checkpoints are kept")
    report_to: list[str] = option(["tensorboard"], help="tensorboard, wandb or none")
    overwrite: bool = overwriting("begin anew in a folder that is not empty; the very run that it holds is continued all the same", title=RUN)
    debug: bool = option(False, help="try the run with a few rows and steps; nothing is saved")

    def __post_init__(self) -> None:
        expect(self, "1 or more", "per_device_train_batch_size", "per_device_eval_batch_size")
        expect(self, "1 or more", "gradient_accumulation_steps", "global_batch_size")
        expect(self, "1 or more", "logging_steps", "keep_last")
        expect(self, NOT_NEGATIVE, "learning_rate", "weight_decay", "gradient_clipping")
        expect(self, NOT_NEGATIVE, "warmup_steps", "checkpoint_every", "seed")
        expect(self, NOT_NEGATIVE, "tokens_per_micro_batch", "tokens_per_eval_batch")
        expect(self, BELOW_ONE, "adam_beta1", "adam_beta2", "ema_decay")
        expect(self, "0 to 1", "warmup_ratio")
        expect(self, "above 0", "num_train_epochs")
        expect(self, "1 or more, or -1", "max_steps")
        if self.gradient_accumulation_steps is not None and self.global_batch_size is not None:
            raise UserError("--gradient_accumulation_steps and --global_batch_size exclude each other; give one")
        if self.warmup_steps and self.warmup_ratio:
            raise UserError("--warmup_steps and --warmup_ratio exclude each other; give one")
        if self.bf16 and self.zero_stage == 0 and not self.deepspeed:
            raise UserError("--bf16 needs --zero_stage 1, 2 or 3: at stage 0 DeepSpeed would round its master weights")
        if self.lr_scheduler_type == "constant" and (self.warmup_steps or self.warmup_ratio):
            raise UserError("--lr_scheduler_type constant has no warm-up; give constant_with_warmup")
        unknown = set(self.report_to) - {"tensorboard", "wandb", "none"}
        if unknown:
            raise UserError(f"--report_to {sorted(unknown)[0]}: expected tensorboard, wandb or none")
        for name in ("eval_every", "save_every"):
            Interval.of(getattr(self, name), name)
        self.run_name = self.run_name or self.output_dir.rstrip("/").split("/")[-1]

    @property
    def dtype_name(self) -> str:
        """Return the name of the dtype that is trained in."""
        return "bf16" if self.bf16 else "fp32"


@dataclass
class SamplingArguments:
    """Options of the answers that are sampled at evaluations."""

    sample_during_eval: int = option(0, help="prompts to answer at each evaluation; held-out ones, and the answers are shown and written", title="Answers at evaluations", first=True)
    sample_max_new_tokens: int = option(128, help="longest of these answers in tokens")
    sample_temperature: float = option(0.7, help="temperature of these answers; 0: greedy")
    sample_top_p: float = option(0.9, help="sample from the likeliest tokens that together have this probability (top-p)")
    reward_model_name_or_path: Optional[str] = option(help="reward model that scores these answers; before training and after each epoch", first=True)

    def __post_init__(self) -> None:
        expect(self, NOT_NEGATIVE, "sample_during_eval", "sample_temperature")
        expect(self, "1 or more", "sample_max_new_tokens")
        expect(self, "above 0 and at most 1", "sample_top_p")
        if self.reward_model_name_or_path and self.sample_during_eval < 1:
            raise UserError("--reward_model_name_or_path scores sampled answers; say how many with --sample_during_eval N")


def refuse_dropout(model_args: ModelArguments) -> None:
    """Refuse dropout: preference stages compare log-probs or scores of two passes, which it would make differ."""
    if model_args.dropout or model_args.lora_dropout:
        raise UserError("--dropout and --lora_dropout must be 0 here: policy and reference, or two scores, are compared")


def refuse_samples_without_evaluation(sampling: SamplingArguments, args: TrainingArguments) -> None:
    """Refuse to sample at evaluations that never come."""
    if sampling.sample_during_eval and args.eval_every == "never":
        raise UserError(
            f"--sample_during_eval {sampling.sample_during_eval} samples at evaluations, and --eval_every is never; "
            f"give --sample_during_eval 0, or another --eval_every"
        )


@dataclass(frozen=True)
class Interval:
    """How often something is done: `epoch`, `epoch_K`, N steps or `never`."""

    epochs: int = 0
    steps: int = 0

    @staticmethod
    def of(text: str, name: str) -> Interval:
        """Return what the value of option `name` says. Raises UserError."""
        if text == "never":
            return Interval()
        if text == "epoch":
            return Interval(epochs=1)
        number = text.removeprefix("epoch_")
        if not number.isdigit() or int(number) < 1:
            raise UserError(f"--{name} is {text!r}; expected epoch, epoch_K, a number of steps, or never")
        if number != text:
            return Interval(epochs=int(number))
        return Interval(steps=int(number))

    def due(self, step: int, epoch_ended: int | None) -> bool:
        """Return whether it is time after optimizer step `step` (from 1), which ended epoch `epoch_ended` or none."""
        if self.steps:
            return step % self.steps == 0
        return bool(self.epochs and epoch_ended and epoch_ended % self.epochs == 0)
