"""The doctor: every fault that it finds, planted in small data, tokenizers and models; silence where there is none."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess

import in_process
import pytest
import torch
from in_process import DPO, PPO, REWARD, SFT
from processes import environment
from safetensors.torch import load_file, save_file
from small_tokenizers import byte_level, llama
from stages import TEMPLATE, toy_model
from toy_folders import write_rows
from toys import ROOT
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling

from utils.arguments import parse
from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.doctor import CHECKS, DoctorArguments, StageData, examine, gather
from utils.doctor.estimate import estimate
from utils.model.lora import add_lora
from utils.tokens.group import Group

COLOURS = ["red", "green", "blue", "grey", "black", "white", "pink", "brown", "amber", "violet"]
NOUNS = ["cat", "dog", "bird", "fish", "horse", "mouse", "tree", "house", "river", "stone"]
LIMITS = ["--max_prompt_seq_len", "128", "--max_answer_seq_len", "64", "--gpu_tflops", "100"]
LINE = re.compile(r"^(found|warning): (\w+): (.+?): (.+); (.+)$", re.MULTILINE)


def pairs(count=60, start=0):
    """Comparisons without a fault: as many chosen answers are longer as rejected ones."""
    made = []
    for n in range(start, start + count):
        noun, colour = NOUNS[n % 10], COLOURS[n // 10 % 10]
        long, short = f"the {noun} looks {colour} today, number {n}", f"no {colour} {noun} in {n}"
        chosen, rejected = (long, short) if n % 2 else (short, long)
        made.append({"prompt": f"which colour has {noun} {n}?", "chosen": chosen, "rejected": rejected})
    return made


def records(rows, **facts):
    """The same rows as records; `facts` of the chosen and of the rejected answer."""
    made = []
    for row in rows:
        answers = [
            {"text": row[side], **{name: values[place] for name, values in facts.items()}}
            for place, side in enumerate(("chosen", "rejected"))
        ]
        prompt = [{"role": "user", "content": row["prompt"]}]
        made.append({"prompt": prompt, "answers": answers, "verdicts": [{"a": 0, "b": 1, "preferred": "a"}]})
    return made


def model(folder, tokenizer=None, template=TEMPLATE, **changes):
    """A model folder with a byte-level tokenizer, or another one."""
    toy_model(folder, **{"vocab_size": 512, "max_position_embeddings": 4096, **changes})
    tokenizer = tokenizer or byte_level(pad="<pad>", bos="<s>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    model(folder / "model")
    return folder


@pytest.fixture
def doctor(clean, tmp_path, capsys):
    """doctor(stage, train rows, *flags, …) -> (exit code, {check: "found" or "warning"}, what was printed)."""

    def run(stage, rows, *flags, held_out=None, at=None):
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        write_rows(data / "train.jsonl", rows)
        write_rows(data / "test.jsonl", held_out or pairs(10, start=60))
        words = ["--model_name_or_path", at or clean / "model", "--data_path", data, "--output_dir", tmp_path / "out"]
        if stage == PPO and "--reward_model_name_or_path" not in flags:
            flags = ("--reward_model_name_or_path", clean / "model", *flags)
        code = in_process.run(ROOT / "training/doctor.py", stage, *words, *LIMITS, "--", *flags)
        said = capsys.readouterr()
        assert not said.err, said.err
        assert not (tmp_path / "out").exists()
        return code, {name: kind for kind, name, *_ in LINE.findall(said.out)}, said.out

    return run


@pytest.mark.parametrize("stage", [SFT, REWARD, DPO, PPO])
def test_clean_data_gives_tables_and_no_word_more(doctor, stage):
    code, found, said = doctor(stage, pairs())
    assert (code, found) == (0, {}) and "prompt: " in said
    tables = ["rows", "tokens, and what the limits cut", "begin and stop tokens", "memory and time"]
    assert all(f"\n{title}\n" in said for title in tables)
    assert ("\npairs\n" in said) == (stage in (REWARD, DPO))


# ---- the faults: check -> (stage, rows, flags, further arguments of the fixture)

LONG = "a story of the river and the stone " * 60
IM_END = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"  # noqa: E501
NO_SYSTEM = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
WITH_SYSTEM = [
    {**row, "prompt": [{"role": "system", "content": "Be short and kind."}, *row["prompt"]]} for row in records(pairs())
]


def changed(count, **change):
    """The rows, of which `count` are changed: values are functions of the row."""
    rows = pairs()
    for row in rows[:count]:
        row |= {name: make(row) for name, make in change.items()}
    return rows


def swapped(rows):
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


FAULTS = {
    "empty_answers": (DPO, changed(6, chosen=lambda row: " "), ()),
    "same_answers": (REWARD, changed(60, chosen=lambda row: "the cat is red"), ()),
    "equal_pairs": (DPO, changed(6, chosen=lambda row: row["rejected"]), ()),
    "duplicates": (SFT, pairs() + pairs(), ()),
    "conflicting_labels": (DPO, pairs() + swapped(pairs(8)), ()),
    "reversed_labels": (  # a tenth of the rows
        REWARD, records(swapped(pairs(6)), rating=(2, 6)) + records(pairs(54, start=6), rating=(6, 2)), ()),
    "one_kind_of_label": (REWARD, records(pairs(), thumb=(True, True)), ()),
    "length_bias": (DPO, changed(60, chosen=lambda row: row["rejected"] + " and so on"), ()),
    "repeated_prompts": (SFT, changed(6, chosen=lambda row: f"{row['prompt']} red"), ()),
    "role_markers": (SFT, changed(6, chosen=lambda row: f"{row['chosen']}\n\nHuman: why?\n\nAssistant: so"), ()),
    "special_tokens": (DPO, changed(6, prompt=lambda row: f"<|im_start|>{row['prompt']}"), ()),
    "other_template": (DPO, pairs(), ("--template", "alpaca")),
    "unfinished_answers": (SFT, records(pairs(), finished=(False, True)), ()),
    "cut_answers": (DPO, pairs(), ("--max_answer_seq_len", "8")),
    "cut_prompts": (PPO, pairs(), ("--max_prompt_seq_len", "26")),
    "few_trained_tokens": (
        SFT, changed(60, prompt=lambda row: LONG + row["prompt"], chosen=lambda row: "a"),
        ("--max_prompt_seq_len", "2000")),
    "long_warmup": (SFT, pairs(), ("--warmup_steps", "500")),
    "random_start": (DPO, pairs(), ("--from_scratch",)),
    "eval_rows_in_train": (DPO, pairs(), (), dict(held_out=pairs(2) + pairs(10, start=60))),
    "eval_prompts_in_train": (DPO, pairs(), (), dict(held_out=changed(60, chosen=lambda row: "a new one"))),
}  # fmt: skip
MODELS = {  # check -> (stage, rows, flags, how the model is made)
    "dropped_messages": (DPO, WITH_SYSTEM, (), dict(template=NO_SYSTEM)),
    "double_bos": (SFT, pairs(), (), dict(template="{{ bos_token }}" + TEMPLATE)),
    "missing_bos": (SFT, pairs(), (), dict(tokenizer=llama(), template=TEMPLATE.replace("{{ bos_token }}", ""))),
    "unknown_tokens": (SFT, pairs(), (), dict(tokenizer="words")),
    "tokens_out_of_range": (SFT, pairs(), (), dict(vocab_size=280)),
    "too_few_positions": (PPO, pairs(), (), dict(max_position_embeddings=64)),
    "pad_ends_answers": (
        REWARD, pairs(), (), dict(tokenizer=byte_level(pad="<|im_end|>"), template=IM_END)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_found(doctor, name):
    stage, rows, flags, *others = FAULTS[name]
    code, found, said = doctor(stage, rows, *flags, **dict(*others))
    assert code == 1 and found.get(name) == "found", said
    assert CHECKS[name].remedy in said


@pytest.mark.parametrize("name", MODELS)
def test_a_fault_of_the_model_is_found(doctor, tmp_path, name):
    stage, rows, flags, changes = MODELS[name]
    if changes.get("tokenizer") == "words":
        at = toy_model(tmp_path / "model")
    else:
        at = model(tmp_path / "model", **changes)
    code, found, said = doctor(stage, rows, *flags, at=at)
    assert code == 1 and found.get(name) == "found", said


@pytest.mark.parametrize("fault", ["tokenizer", "template", "same"])
def test_a_reward_model_that_reads_other_tokens(doctor, tmp_path, fault):
    other = {"tokenizer": dict(tokenizer=llama()), "template": dict(template=IM_END), "same": {}}[fault]
    reward = model(tmp_path / "reward", **other)
    code, found, said = doctor(PPO, pairs(), "--reward_model_name_or_path", str(reward))
    assert code == int(fault != "same") and ("other_tokenizer" in found) == (fault != "same"), said


@pytest.mark.parametrize("value, bf16, found", [(float("inf"), False, 1), (3.4e38, True, 1), (3.4e38, False, 0)])
def test_weights_that_the_dtype_cannot_hold(doctor, tmp_path, value, bf16, found):
    at = model(tmp_path / "model")
    tensors = load_file(at / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, at / "model.safetensors", {"format": "pt"})
    flags = ("--bf16", "--zero_stage", "1") if bf16 else ()
    code, names, said = doctor(SFT, pairs(), *flags, at=at)
    assert code == found and ("broken_weights" in names) == bool(found), said
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros_like(tensors["model.layers.1.mlp.up_proj.weight"])
    save_file(tensors, at / "model.safetensors", {"format": "pt"})
    assert doctor(SFT, pairs(), at=at)[0] == 1


def test_memory_is_a_warning_alone(doctor):
    code, found, said = doctor(DPO, pairs(), "--gpu_gb", "0.0001", "--gpus", "8", "--zero_stage", "2")
    assert (code, found) == (0, {"too_little_memory": "warning"}), said


def subject_of(at, folder, *flags):
    """What the doctor looks at in SFT on the clean rows."""
    write_rows(folder / "train.jsonl", pairs())
    words = ["--model_name_or_path", at, "--data_path", folder, "--output_dir", folder / "out"]
    words += ["--eval_every", "never", *flags]
    classes = [ModelArguments, DataArguments, TrainingArguments, DoctorArguments]
    *groups, options = parse(classes, list(map(str, words)))
    return gather(StageData("step1_sft", 1, "demonstrations"), groups, options)


def test_pad_equals_eos_is_found_where_padding_is_masked_by_id(tmp_path):
    """A run here masks by length, so the stop token is trained; with transformers' own collator, which masks by id, it
    is not."""
    subject = subject_of(model(tmp_path / "model", tokenizer=byte_level(pad="</s>", bos="<s>")), tmp_path)
    assert examine(subject) == []

    collator = DataCollatorForLanguageModeling(subject.tokenizer, mlm=False)

    def trained(group: Group):
        kept = []
        for answer in group.answers:
            labels = collator([{"input_ids": answer.tolist()}])["labels"][0].numpy()
            kept.append(labels[labels != -100])
        return kept

    subject.trained = trained
    (finding,) = examine(subject)
    assert finding.check == "untrained_stop" and finding.severe
    assert re.match(r"(5\d) of \1 answers do not train their stop token", finding.what)
    assert "the pad token is a stop token" in finding.what


def test_the_estimate_counts_what_is_there(clean, tmp_path):
    """Weights and adapters as a model that is made has them; bytes of ZeRO 1 and 3 by hand."""
    flags = ("--bf16", "--gpus", "4", "--zero_stage")
    memory = estimate(subject_of(clean / "model", tmp_path, *flags, "1"))
    made = AutoModelForCausalLM.from_pretrained(clean / "model")
    count = sum(p.numel() for p in made.parameters())
    assert memory.weights.all == memory.weights.trained == count
    assert (memory.parts["weights"], memory.parts["gradients"], memory.parts["optimizer"]) == (
        2 * count, 4 * count, 3 * count)  # fmt: skip
    memory = estimate(subject_of(clean / "model", tmp_path, *flags, "3", "--lora_dim", "4"))
    subject = subject_of(clean / "model", tmp_path, "--lora_dim", "4")
    adapted = sum(p.numel() for p in add_lora(made, subject.model_args).parameters() if p.requires_grad)
    assert memory.weights.trained == adapted and memory.parts["optimizer"] == 12 * adapted / 4
    assert memory.parts["weights"] == 2 * count / 4


def test_every_check_has_its_fault():
    elsewhere = {"other_tokenizer", "broken_weights", "too_little_memory", "untrained_stop"}
    assert FAULTS.keys() | MODELS.keys() | elsewhere == CHECKS.keys() and len(CHECKS) >= 15


# ---- what is looked at


def test_at_most_max_rows_are_looked_at_and_prompts_stay_whole(doctor):
    """Of 60 prompts with the same pair decided both ways 20 rows are drawn: about all are in contradiction. The leak
    into the held-out rows is found among the prompts that were drawn."""
    rows = pairs() + swapped(pairs())
    code, found, said = doctor(DPO, rows, "--max_rows", "20", held_out=pairs())
    assert code == 1 and {"conflicting_labels", "eval_rows_in_train"} <= found.keys()
    assert re.search(r"^train +120 +20 ", said, re.MULTILINE)
    contradicted = re.search(r"(\d+) of 20 pairs are decided the other way", said)
    assert int(contradicted[1]) >= 18
    leaked, rows_of_them = map(int, re.search(r"(\d+) of (\d+) evaluation rows are also", said).groups())
    assert leaked == rows_of_them < 60


def test_copies_that_a_weight_asks_for_are_no_duplicates(clean, doctor, tmp_path):
    write_rows(tmp_path / "own.jsonl", pairs())
    flags = ("--data_path", f"{tmp_path / 'own.jsonl'}=3", "--eval_data_path", str(tmp_path / "data/test.jsonl"))
    code, found, said = doctor(DPO, pairs(), *flags)
    assert (code, found) == (0, {}) and re.search(r"^train +180 ", said, re.MULTILINE)


@pytest.mark.parametrize("stage, loss", [(DPO, "mse"), (DPO, "kto"), (REWARD, "davidson")])
def test_the_loss_decides_what_is_read(capsys, clean, tmp_path, stage, loss):
    """Ratings alone are nothing to DPO, thumbs alone nothing to mse; each loss reads its own."""
    facts = {"mse": {"rating": (3, 1)}, "kto": {"thumb": (True, False)}, "davidson": {}}[loss]
    rows = records(pairs(80), **facts)
    for row in rows:
        if loss != "davidson":
            del row["verdicts"]
        else:
            row["verdicts"][0]["preferred"] = "tie"
    write_rows(tmp_path / "rows.jsonl", rows)
    words = [ROOT / "training/doctor.py", stage, "--model_name_or_path", clean / "model", *LIMITS]
    words += ["--data_path", tmp_path / "rows.jsonl", "--output_dir", tmp_path / "out"]
    assert in_process.run(*words) == 2 and "can be used as comparisons" in capsys.readouterr().err
    assert in_process.run(*words, "--loss", loss) == 0, capsys.readouterr().out


def test_what_a_stage_refuses_is_refused_alike(capsys, clean, tmp_path):
    def line(*words):
        assert in_process.run(ROOT / "training/doctor.py", *words) == 2
        return capsys.readouterr().err

    assert "the stage is missing; expected one of step1_sft, step2_reward, step3_dpo, step3_ppo" in line()
    assert "stage step3_dqo: no such stage" in line("step3_dqo")
    words = [DPO, "--model_name_or_path", clean / "model", "--data_path", "none.jsonl", "--output_dir", tmp_path / "o"]
    assert "none.jsonl: no such file" in line(*words)
    assert "--loss nope is unknown" in line(*words, "--loss", "nope")
    assert "--max_rows is 0; expected 1 or more" in line(*words, "--max_rows", "0")
    assert "unknown option --beta" in line(SFT, *words[1:], "--beta", "0.1")


def test_it_takes_what_the_stage_takes():
    """The same option classes as main.py gives to parse()."""
    for stage in (SFT, REWARD, DPO, PPO):
        tree = ast.parse((ROOT / "training" / stage / "main.py").read_text(encoding="utf-8"))
        (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "parse"]
        names = [ast.unparse(group) for group in call.args[0].elts]
        classes = runpy.run_path(str(ROOT / "training/doctor.py"))["option_classes"](stage)
        assert [*names, "DoctorArguments"] == [group.__name__ for group in classes]


def test_the_document_has_the_checks():
    text = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    told = {name: (why, remedy.replace("`", "")) for name, why, remedy in rows}
    assert told == {name: (check.why, check.remedy) for name, check in CHECKS.items()}


def test_a_script_with_doctor_set_hands_its_options_over(clean, tmp_path):
    """Ended by an option of the doctor alone, so that no other process has to read data and model."""
    settings = {"MODEL": clean / "model", "DATA": tmp_path, "OUTPUT": tmp_path / "out", "GPUS": 4, "DOCTOR": 1}
    script = ["bash", str(ROOT / "training/step3_dpo/run_tiny.sh"), "--max_rows", "0"]
    settings = {name: str(value) for name, value in settings.items()}
    done = subprocess.run(script, env=environment(**settings), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --max_rows is 0; expected 1 or more\n"), done
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def built_in_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built_in") / "world"
    sizes = {"demonstrations": 400, "prompts": 100, "pairs": 100, "test": 20}
    words = [word for name, size in sizes.items() for word in (f"--num_{name}", size)]
    assert in_process.run(ROOT / "data_collect/make_world.py", "--output_dir", folder, *words, "--vocab_size", 400) == 0
    return folder


@pytest.mark.parametrize("stage, data", [(SFT, "sft"), (REWARD, "pairs"), (DPO, "pairs"), (PPO, "prompts")])
def test_the_built_in_world_has_no_fault(stage, data, built_in_world, tmp_path, capsys):
    words = ["--model_name_or_path", built_in_world / "model", "--data_path", built_in_world / data]
    words += ["--output_dir", tmp_path / "out", *LIMITS, "--", "--max_answer_seq_len", "160"]
    words += ["--from_scratch"] if stage in (SFT, REWARD) else []
    words += ["--reward_model_name_or_path", built_in_world / "model"] if stage == PPO else []
    code = in_process.run(ROOT / "training/doctor.py", stage, *words)
    said = capsys.readouterr().out
    assert code == 0 and LINE.findall(said) == [], said
