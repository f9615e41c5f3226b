"""Step 3 by reinforcement on rewards whose optimum is known, and what the first minibatch must say."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import in_process
import pytest
import torch
from in_process import PPO
from stages import demonstrations, metrics, toy_data, toy_model, weights

QUICK = (
    "--max_answer_seq_len", "8", "--prompts_per_rollout", "16", "--samples_per_prompt", "4", "--minibatches", "2",
    "--learning_rate", "3e-3", "--unfinished", "keep", "--kl_coef", "0", "--eval_every", "never",
    "--checkpoint_every", "0",
)  # fmt: skip
REWARDS = """
def yes(record):
    return [float(a.text.split().count("yes")) for a in record.answers]

def no_yes(record):
    return [-score for score in yes(record)]

def short(record):
    return [-float(len(a.text.split())) + (4.0 if a.finished else 0.0) for a in record.answers]

def too_few(record):
    return [0.0]

def nan(record):
    return [float("nan") for a in record.answers]

def raises(record):
    return [1 / 0 for a in record.answers]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs", rows=64)
    demonstrations(folder / "demos")
    (folder / "rewards.py").write_text(REWARDS)
    return folder


@pytest.fixture
def learn(world, tmp_path):
    def run(name, *flags, reward="yes", steps=25, expect=0):
        source = () if reward is None else ("--reward_fn", f"{world / 'rewards.py'}:{reward}")
        out = tmp_path / name
        words = later_wins([*QUICK, *source, "--max_steps", str(steps), *flags])
        code = in_process.run_stage(PPO, world / "model", world / "pairs", out, world / "cache", *words)
        assert code == expect
        return metrics(out) if expect == 0 else None

    return run


def later_wins(words):
    """Of two flags of one name the later, with its values."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            found.pop(word, None)
            found[word] = []
        else:
            found[list(found)[-1]].append(word)
    return [word for flag, values in found.items() for word in (flag, *values)]


def test_the_optimum_is_reached(learn):
    """Eight times yes is the best that eight tokens can say."""
    rows = learn("up")
    assert rows[0]["score"] < 1.5 and rows[-1]["score"] > 6.5
    assert rows[-1]["entropy"] < rows[0]["entropy"]


def test_with_the_sign_flipped_it_goes_the_other_way(learn):
    rows = learn("down", reward="no_yes", steps=15)
    assert rows[0]["score"] <= -0.05 and max(row["score"] for row in rows[-5:]) > -0.02
    assert sum(row["score"] for row in rows[-5:]) > 0.4 * sum(row["score"] for row in rows[:5])


def test_lengths_are_learned_through_the_end_token(learn):
    rows = learn("short", reward="short", steps=30)
    assert rows[-1]["finished"] > 0.9 > rows[0]["finished"] and rows[-1]["length"] < 3


def test_a_large_kl_coefficient_keeps_the_policy(learn):
    rows = learn("held", "--kl_coef", "50", steps=15)
    assert abs(rows[-1]["kl"]) < 0.3 and rows[-1]["score"] < 2.0


@pytest.mark.parametrize("advantage", ["rloo", "group"])
def test_without_a_critic(learn, advantage, tmp_path):
    rows = learn("alone", "--advantage", advantage, "--learning_rate", "1e-2", "--ppo_epochs", "2")
    assert rows[-1]["score"] > 5 and "value_loss" not in rows[0]
    assert not (tmp_path / "alone" / "critic").exists()


def test_the_kl_in_the_loss_holds_too(learn):
    free = learn("free", "--preset", "grpo", "--kl_coef", "0", "--learning_rate", "1e-2")
    held = learn("held", "--preset", "grpo", "--kl_coef", "5", "--learning_rate", "1e-2")
    assert held[-1]["kl"] < free[-1]["kl"] / 3


def test_the_first_ratios_are_one(learn):
    rows = learn("first", steps=3)
    assert max(row["first_ratio_gap"] for row in rows) <= 1e-5 < rows[0]["ratio_gap"]
    decoded = learn("decoded", "--old_logprobs", "decoding", steps=3)
    assert max(row["first_ratio_gap"] for row in decoded) <= 1e-5


def test_dropout_would_break_the_first_ratios(learn, monkeypatch):
    """Refused on the command line; forced past the refusal, the ratios say it."""
    learn("refused", "--dropout", "0.1", expect=2)
    from utils.model.scoring import Policy

    forward = Policy.forward

    def dropping(self, batch, **options):
        if torch.is_grad_enabled():
            embeddings = self.model.get_input_embeddings()
            hook = embeddings.register_forward_hook(lambda m, i, out: torch.nn.functional.dropout(out, 0.1))
            try:
                return forward(self, batch, **options)
            finally:
                hook.remove()
        return forward(self, batch, **options)

    monkeypatch.setattr(Policy, "forward", dropping)
    assert learn("dropped", steps=1)[0]["first_ratio_gap"] > 1e-3


def test_what_is_said_while_it_learns(learn, tmp_path):
    rows = learn("said", "--entropy_coef", "0.01", "--eval_every", "1", "--ema_decay", "0.9", steps=2)
    wanted = {"score", "kl", "entropy", "policy_entropy", "ratio", "clip_fraction", "explained_variance", "length",
              "finished", "advantage_mean", "advantage_std", "value_loss", "policy_loss", "tokens", "kl_coef",
              "eval/score", "eval/kl"}  # fmt: skip
    assert wanted <= set(rows[-1])
    table = [json.loads(line) for line in (tmp_path / "said" / "samples-step-1.jsonl").read_text().splitlines()]
    assert len(table) == 16 and {"prompt", "answers", "scores", "finished"} <= set(table[0])
    for folder in ("", "ema", "critic"):
        assert weights(tmp_path / "said" / folder)
    assert json.loads((tmp_path / "said" / "critic" / "config.json").read_text())["is_critic"] is True


def test_ptx_learns_demonstrations_along_the_way(learn, world):
    rows = learn("ptx", "--ptx_data_path", str(world / "demos"), "--ptx_coef", "5", "--ptx_decay")
    assert rows[-1]["ptx_loss"] < rows[0]["ptx_loss"] - 0.5


def test_value_warmup_moves_only_the_critic(learn):
    rows = learn("warm", "--value_warmup", "3", steps=5)
    assert [("policy_loss" in row) for row in rows] == [False] * 3 + [True] * 2
    assert abs(rows[3]["kl"]) < 1e-6 < abs(rows[4]["kl"]) and all("value_loss" in row for row in rows)


def test_updates_end_when_the_policy_has_moved_far(learn):
    rows = learn("stop", "--stop_update_kl", "1e-4", "--ppo_epochs", "4", "--learning_rate", "1e-2", steps=6)
    assert min(row["updates"] for row in rows) < 8


def test_lora_is_its_own_reference(learn, capsys):
    rows = learn("lora", "--lora_dim", "8", "--lora_target_modules", "lm_head", "q_proj", "--learning_rate", "2e-2")
    assert "no second copy" in capsys.readouterr().out
    assert abs(rows[0]["kl"]) < 1e-4 and rows[-1]["score"] > 3


@pytest.mark.parametrize("how", ["keep", "penalty", "mask"])
def test_unfinished_answers_are_treated_as_asked(learn, how):
    rows = learn("unfinished", "--unfinished", how, steps=12, reward="yes")
    if how == "mask":
        assert rows[0]["finished"] < 0.5
    if how == "penalty":
        kept = learn("kept", "--unfinished", "keep", steps=12)
        assert rows[0]["advantage_mean"] < kept[0]["advantage_mean"] - 0.5


def test_scores_are_transformed_in_order(learn):
    rows = learn("clip", "--score_scale", "10", "--score_clip", "2", steps=1)
    raw = learn("raw", steps=1)
    assert rows[0]["score"] == raw[0]["score"] and rows[0]["advantage_mean"] != raw[0]["advantage_mean"]
    learn("norm", "--normalize_scores", "--sigmoid_scores", steps=2)


class Service(BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802 (http.server's name)
        records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["records"]
        scores = [[float(a["text"].split().count("yes")) for a in r["answers"]] for r in records]
        body = json.dumps({"scores": scores[:-1] if self.path == "/short" else scores}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_service_rewards_as_the_function_does(learn, service):
    by_function, by_service = learn("f", steps=3), learn("s", "--reward_url", service, reward=None, steps=3)
    assert by_function == by_service


def test_a_service_that_answers_wrongly_is_named(learn, service, capsys):
    learn("s", "--reward_url", f"{service}/short", reward=None, steps=1, expect=2)
    assert 'expected {"scores": [...]} with 16 lists' in capsys.readouterr().err


def test_a_reward_that_raises_names_itself_and_the_row(learn, capsys):
    learn("wrong", reward="raises", steps=1, expect=2)
    words = r"rewards\.py:raises raised ZeroDivisionError: .* for \S+train\.jsonl:\d+ \(\S+rewards\.py:18\)$"
    assert re.search(words, capsys.readouterr().err, re.MULTILINE)


@pytest.mark.parametrize(
    "reward, flags, words",
    [
        ("too_few", (), "expected 4 finite numbers"),
        ("nan", (), "expected 4 finite numbers"),
        ("absent", (), "has no function 'absent'"),
        (None, (), "the reward is none; give one of"),
        (None, ("--reward_fn", "nothing"), "expected module:function or FILE.py:function"),
        (None, ("--reward_fn", "no.such.module:f"), "cannot be imported"),
        (None, ("--reward_url", "ftp://x"), "expected http:// or https://"),
        (None, ("--reward_url", "http://127.0.0.1:9/"), "the reward service does not answer"),
        ("yes", ("--prompts_per_rollout", "0"), "--prompts_per_rollout is 0; expected 1 or more"),
        ("yes", ("--advantage", "rloo", "--samples_per_prompt", "1"), "give --samples_per_prompt 2 or more"),
        ("yes", ("--minibatches", "17"), "some would be empty"),
        ("yes", ("--value_warmup", "1"), "leaves the policy none"),
        ("yes", ("--max_steps", "-1", "--prompts_per_rollout", "200"), "64 prompts, fewer than"),
        ("yes", ("--ptx_coef", "1"), "--ptx_data_path and --ptx_coef belong together"),
        ("yes", ("--advantage", "group", "--value_warmup", "2"), "--value_warmup is for --advantage gae; leave it out"),
        ("yes", ("--kl_in", "somewhere"), "invalid choice"),
        ("yes", ("--kl_in", "loss", "--kl_estimate", "k1"), "the expected gradient of log π − log ρ is zero"),
        ("yes", ("--no_enable_hybrid_engine",), "--no_enable_hybrid_engine is for ZeRO-3"),
        ("yes", ("--old_logprobs", "decoding", "--temperature", "0.7"), "notes log-probs at temperature 1"),
        ("yes", ("--gradient_accumulation_steps", "2"), "--minibatches"),
    ],
)  # fmt: skip
def test_wrong_rewards_and_options(learn, capsys, reward, flags, words):
    learn("wrong", *flags, reward=reward, steps=1, expect=2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], errors
