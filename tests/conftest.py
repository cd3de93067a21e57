"""What every test shares: no connection leaves this machine, no model hub is asked; small corpora, models and runs."""

from __future__ import annotations

import csv
import os
import socket
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
LOOPBACK = ("127.", "localhost", "::1")


@pytest.fixture(autouse=True)
def _no_connection_beyond_loopback(monkeypatch):
    """Fail any test that opens a connection to another machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            pytest.fail(f"the test tried to connect to {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real documents that DOCTUNE_DATA names; the test is skipped where there is none."""
    folder = Path(os.environ.get("DOCTUNE_DATA", Path(__file__).parents[1] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set DOCTUNE_DATA to the folder that holds it")
    return folder.resolve()


def write_files(folder: Path, per_class: int = 20) -> Path:
    """Three kinds of file whose content tells them apart, and their manifest."""
    makers = {
        "recipe": lambda n: (
            f"Take {n} eggs and {n + 1} spoons of sugar. Bake the dough for {n} minutes. Serve warm.\n" * 3
        ),
        "ledger": lambda n: "\n".join(f"2026-01-{day:02d};invoice {n}{day};{n * day}.00;EUR" for day in range(1, 9)),
        "program": lambda n: f"def compute_{n}(value):\n    return value * {n}\n\nprint(compute_{n}({n + 3}))\n",
    }
    rows = []
    for label, make in makers.items():
        for number in range(per_class):
            path = folder / f"{number:03d}_{label[0]}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(number), encoding="utf-8")
            rows.append((str(path), label, 1.0))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "label", "confidence"), *rows])
    return manifest


@pytest.fixture(scope="session")
def manifest_of_files(tmp_path_factory) -> Path:
    """60 text files in three classes; never changed by a test."""
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def make_files():
    """`write_files`, for tests that change the files."""
    return write_files


def compose_config(*overrides: str):
    """The checked configuration that the command line would give."""
    from hydra import compose, initialize_config_dir

    from doctune.training.app import conf_dir
    from doctune.training.config import from_hydra, register_schemas

    register_schemas()
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        return from_hydra(compose("config", overrides=list(overrides)))


@pytest.fixture(scope="session")
def compose():
    """`compose_config`: overrides in, checked Config out."""
    return compose_config


TINY = (
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.vocab_size=400",
    "model.dropout=0.1",
    "loss.label_smoothing=0",
    "data.augment.token_dropout=0",
    "data.max_length=32",
    "data.duplicate_threshold=1",  # the made files of a class are near-copies of each other
    "trainer.accelerator=cpu",
    "trainer.precision='32'",
    "trainer.progress=false",
)


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make `model=distilbert_mini` train in seconds."""
    return TINY


@pytest.fixture(scope="session")
def finished_run(manifest_of_files, tmp_path_factory) -> Path:
    """The folder of a run that has learnt the three kinds of file; never changed by a test."""
    from doctune.training.run import train

    run = tmp_path_factory.mktemp("run")
    cache = tmp_path_factory.mktemp("cache")
    config = compose_config(
        *TINY,
        f"data.manifest={manifest_of_files}",
        f"data.cache_dir={cache}",
        "seed=5",  # of so few files, a rate so high, and a split that stays, not every seed learns all
        "optim.lr=4e-3",
        "optim.head_lr_multiplier=1",
        "schedule.warmup_ratio=0.3",
        "trainer.max_epochs=16",
        "trainer.effective_batch_size=4",
        "trainer.log_every_n_steps=1",
        "callbacks.early_stopping.enabled=false",
        "split.val=0.2",
        "split.test=0.2",
    )
    train(config, run)
    return run


def save_tiny_encoder(kind: str, folder: Path, width: int = 32) -> Path:
    """A random encoder of a stock architecture with its usual tokenizer, as `save_pretrained` writes it."""
    import torch
    import transformers as hf
    from tokenizers import ByteLevelBPETokenizer

    from doctune.nets.encoder import scratch_tokenizer
    from doctune.text.vocabulary import learn_wordpiece

    torch.manual_seed(0)
    texts = [
        "Take two eggs and sugar.",
        "2026-01-03;invoice 13;9.00;EUR",
        "def compute(value):\n    return value * 3",
    ] * 5
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "roberta":
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(texts, 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        bpe.save_model(str(folder))
        tokenizer = hf.RobertaTokenizerFast.from_pretrained(folder)
        config = hf.RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=66, **sizes)
        model = hf.RobertaModel(config)
    else:
        learnt = learn_wordpiece(texts, 400)
        tokenizer = scratch_tokenizer(learnt, 64)
        if kind == "bert":
            config = hf.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
            model = hf.BertModel(config)
        else:
            config = hf.DistilBertConfig(
                vocab_size=len(tokenizer), max_position_embeddings=64, dim=width, n_layers=2, n_heads=2, hidden_dim=64
            )
            model = hf.DistilBertModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """`save_tiny_encoder` into a folder of its own: kind in ("distilbert", "bert", "roberta") and width -> folder."""
    made: dict[tuple[str, int], Path] = {}

    def make(kind: str, width: int = 32) -> Path:
        if (kind, width) not in made:
            made[kind, width] = save_tiny_encoder(kind, tmp_path_factory.mktemp(kind), width)
        return made[kind, width]

    return make


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Mistral's: the system's words stand before the last question, and turns must alternate.
MOVING_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + ' ' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% if message['role'] == 'user' %}[INST] "
    "{% if loop.index0 >= turns | length - 2 %}{{ system }}{% endif %}{{ message['content'] }}[/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATTER = (
    "What is the sum of two and three? Five. The answer is seven. Is it late? Very late, nearly twelve. "
    "### User: ### Assistant: ### System: [INST] [/INST] <|user|> <|assistant|> <|system|> Be brief. 0 1 2 3 4 5 6 7 8"
)


def tiny_chat_tokenizer(chat_template: str | None = CHAT_TEMPLATE):
    """A byte-level tokenizer of some 300 tokens with <s>, </s> and, if wanted, a chat template; it has no padding."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([CHATTER] * 4, 300, special_tokens=["<s>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer


def save_tiny_mistral(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """A random Mistral of two layers that reads 128 tokens, with `tiny_chat_tokenizer`."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    tokenizer = tiny_chat_tokenizer(chat_template)
    config = hf.MistralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, attention_dropout=0.0,
    )  # fmt: skip
    hf.MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer():
    """`tiny_chat_tokenizer` by the name of its template: "plain" for none, "chat", or "moving" for Mistral's way."""
    templates = {"plain": None, "chat": CHAT_TEMPLATE, "moving": MOVING_TEMPLATE}
    return lambda name="chat": tiny_chat_tokenizer(templates[name])


@pytest.fixture(scope="session")
def tiny_mistral(tmp_path_factory) -> Path:
    """The folder of `save_tiny_mistral` with a chat template; not to be changed."""
    return save_tiny_mistral(tmp_path_factory.mktemp("mistral"))
