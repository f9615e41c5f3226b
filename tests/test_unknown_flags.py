"""Every program refuses a flag that it does not know, one that is cut short, and one that is given twice."""

import in_process
import pytest
from in_process import PPO, STAGES
from toys import ROOT

# A program, with a mode if it has any -> one of its flags.
PROGRAMS = {f"training/{stage}/main.py": "data_path" for stage in (*STAGES, PPO)} | {
    "training/step1_sft/eval_sft.py": "data_path",
    "training/step1_sft/prompt_eval.py": "output_path",
    "training/step2_reward/rw_eval.py": "data_path",
    "inference/chatbot.py --mode ppl": "data_path",
    "inference/win_rate.py ratings": "reference",
    "inference/win_rate.py judged": "model",
    "inference/win_rate.py agreement": "first_by",
    "inference/eval_alpaca.py": "annotations",
    "inference/bandit.py": "samples",
    "inference/tutoring.py metrics": "response_file",
    "inference/tutoring.py perplexity": "data_path",
    "inference/rerank.py": "data_path",
    "inference/evaluate_world.py": "results",
    "inference/report.py": "num_prompts",
    "data_collect/make_world.py": "output_dir",
    "data_collect/train_tokenizer.py": "data_path",
    "data_collect/oracle_server.py": "noise_temperature",
    "data_collect/request.py": "output_file",
    "data_collect/ledger.py report": "ledger",
    "data_collect/ledger.py list": "state",
    "data_collect/ledger.py reparse": "ledger",
    "data_collect/convert.py": "output",
    "data_collect/consistency.py": "ratings_csv",
    "data_collect/gather_prompts.py": "output_path",
    "data_collect/group.py": "answers",
    "data_collect/pairs.py": "critique_path",
    "training/doctor.py step3_dpo": "data_path",
    "data_collect/tutor.py split": "data_dir",
    "data_collect/tutor.py pairs": "response_file",
}


@pytest.mark.parametrize("program, flag", PROGRAMS.items())
def test_unknown_abbreviated_and_repeated_flags(capsys, program, flag):
    name, *mode = program.split()

    def given(*words):
        assert in_process.run(ROOT / name, *mode, *words) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "unknown option --no_such_flag" in given("--no_such_flag", "3")
    assert f"unknown option --{flag[:-2]}; did you mean --{flag}?" in given(f"--{flag[:-2]}", "x")
    assert f"--{flag} is given twice; give it once" in given(f"--{flag}", "x", f"--{flag.replace('_', '-')}=y")


def test_every_program_is_among_these():
    folders = ("training/step*", "inference", "data_collect")
    found = {str(file.relative_to(ROOT)) for folder in folders for file in ROOT.glob(f"{folder}/*.py")}
    assert found | {"training/doctor.py"} == {program.split()[0] for program in PROGRAMS}
