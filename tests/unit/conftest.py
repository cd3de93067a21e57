"""What unit tests share: a reader whose weights are written down, not learnt; tiny models; a chat endpoint."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from doctune.corpus.targets import TargetSpec
from doctune.labels import Labels

# What a word does, by the hidden dimensions that are hot in it: 0 makes it a start, 1 an end, others weaken it.
KNOWN_WORDS = {
    "maria": (0,),
    "keller": (1,),  # "Maria Keller" is the best answer of all
    "paris": (0, 1),
    "[CLS]": (0, 1, 2),  # no answer is better than Lyon and worse than Paris
    "lyon": (0, 1, 2, 3),
}
DIM = 8
# Those of the tiny model of several targets, whose thresholds let every `a` and no `c` through.
KIND_TARGET = TargetSpec("kind", "single", Labels(("x", "y")))
TAGS_TARGET = TargetSpec("tags", "multi", Labels(("a", "b", "c")))


def save_known_reader(run, *, no_answer_threshold=None):
    """The run folder of a DistilBERT in which every token sees only itself; unknown words weigh nothing."""
    import torch
    import transformers as hf
    from tokenizers import BertWordPieceTokenizer

    from doctune.decode.answers import SpanSettings
    from doctune.inference.artifact import Artifact, ReadingSettings
    from doctune.nets.encoder import scratch_tokenizer
    from doctune.text.extract import ExtractSettings
    from doctune.text.questions import WindowSettings

    names = ["[PAD]", "[UNK]", "[SEP]", "[MASK]", *KNOWN_WORDS]
    vocabulary = {name: number for number, name in enumerate(names)}
    config = hf.DistilBertConfig(
        vocab_size=len(names), dim=DIM, n_layers=1, n_heads=2, hidden_dim=DIM, max_position_embeddings=32
    )
    net = hf.DistilBertForQuestionAnswering(config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.fill_(1.0 if name.lower().endswith("norm.weight") else 0.0)
        for word, dimensions in KNOWN_WORDS.items():
            net.distilbert.embeddings.word_embeddings.weight[vocabulary[word], list(dimensions)] = 1.0
        net.qa_outputs.weight[0, 0] = net.qa_outputs.weight[1, 1] = 5.0
    net.save_pretrained(run / "model")
    scratch_tokenizer(BertWordPieceTokenizer(vocabulary)._tokenizer, 32).save_pretrained(run / "model")
    reading = ReadingSettings(WindowSettings(32, 8, 8), SpanSettings(max_answer_length=4), no_answer_threshold)
    Artifact(run / "model", "question_answering", Labels(()), 32, ExtractSettings(), reading).save()
    return run


@pytest.fixture(scope="session")
def known_reader(tmp_path_factory):
    """A run that always answers: "Maria Keller" before "Paris" before "Lyon" before anything else."""
    return save_known_reader(tmp_path_factory.mktemp("known_reader"))


@pytest.fixture(scope="session")
def doubting_reader(tmp_path_factory):
    """The same with SQuAD 2.0's right to give no answer, which it does where nothing is better than "Lyon"."""
    return save_known_reader(tmp_path_factory.mktemp("doubting_reader"), no_answer_threshold=0.0)


def save_tiny_model(folder, task, encoder_folder):
    """A `model/` folder of a task on a tiny random encoder, whose outputs differ from text to text."""
    import torch
    import transformers as hf

    from doctune.decode.answers import SpanSettings
    from doctune.inference.artifact import Artifact, ReadingSettings, TargetSettings
    from doctune.nets.hierarchy import HierarchySettings, hierarchical_classifier
    from doctune.nets.multi_task import MultiTaskSettings, multi_task_classifier
    from doctune.text.chunks import ChunkSettings
    from doctune.text.extract import ExtractSettings
    from doctune.text.questions import WindowSettings

    shutil.copytree(encoder_folder, folder)
    labels, reading, chunks, targets = Labels(("code", "invoice", "recipe")), None, None, ()
    torch.manual_seed(1)
    if task == "classification":
        config = hf.AutoConfig.from_pretrained(folder, num_labels=len(labels), id2label=labels.id2label)
        net = hf.AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    elif task == "question_answering":
        net = hf.AutoModelForQuestionAnswering.from_pretrained(folder)
        reading, labels = ReadingSettings(WindowSettings(48, 12, 16), SpanSettings(6, 5)), Labels(())
    elif task == "multi_task":
        labels, targets = Labels(()), (TargetSettings(KIND_TARGET), TargetSettings(TAGS_TARGET, (0.0, 0.5, 1.0)))
        specs = [target.spec for target in targets]
        net = multi_task_classifier(
            hf.AutoConfig.from_pretrained(folder), specs, str(folder), MultiTaskSettings("mean")
        )
    else:
        chunks = ChunkSettings(16, 4, 6, "head")
        config = hf.AutoConfig.from_pretrained(folder)
        net = hierarchical_classifier(config, labels, str(folder), HierarchySettings(6))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(5 if parameter.ndim > 1 and "embeddings" not in name else 1)
    net.save_pretrained(folder)
    Artifact(folder, task, labels, 48, ExtractSettings(), reading, chunks, targets=targets).save()
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_encoder, tmp_path_factory):
    """A function: task, kind of encoder -> the folder of `save_tiny_model`, which is not to be changed."""
    made = {}

    def make(task="classification", kind="distilbert"):
        if (task, kind) not in made:
            folder = tmp_path_factory.mktemp(f"{task}_{kind}") / "model"
            made[task, kind] = save_tiny_model(folder, task, tiny_encoder(kind))
        return made[task, kind]

    return make


def say(text, **choice):
    """A chat completion that answers with a text."""
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop", **choice}]})


class StandIn:
    """A chat endpoint; `behave(text, number)` gives status, headers and body of the answer to a document.

    Attributes:
        requests: (path, headers, body) of each, in order.
        begun: when each came, in seconds.
        most_at_once: the largest number of requests that were answered at the same time.
    """

    def __init__(self, behave):
        self.behave = behave
        self.requests = []
        self.begun = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = stand_in._begin(self.path, dict(self.headers), body)
                text = re.search(r"<document>\n(.*)\n</document>", body["messages"][0]["content"], re.DOTALL)[1]
                try:
                    answer = stand_in.behave(text, number)
                finally:
                    stand_in._end()
                self._send(*answer)

            def _send(self, status, headers, body):
                pieces = [body] if isinstance(body, str) else body
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece.encode())
                        self.wfile.flush()
                except OSError:  # the client has given up
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def _begin(self, path, headers, body):
        with self._lock:
            self.requests.append((path, headers, body))
            self.begun.append(time.monotonic())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return len(self.requests)

    def _end(self):
        with self._lock:
            self._at_once -= 1

    def stop(self):
        """Close the port: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def stand_in():
    """A function: what to do with a document and the number of its request -> a running `StandIn`."""
    started = []

    def start(behave):
        started.append(StandIn(behave))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def completion():
    """`say`: a text -> the answer that says it."""
    return say


# Of the kinds that the made tokenizers know, from none to more tokens than a window or all chunks hold.
MODEL_TEXTS = (
    "",
    "Take two eggs and sugar.",
    "2026-01-03;invoice 13;9.00;EUR",
    "def compute(value):\n    return value * 3",
    "Take sugar and sugar and two eggs. " * 3,
    "2026-01-03;invoice 3;13.00;EUR\n" * 9,
    "def compute(value):\n    return value * 13\n" * 30,
)


def examples_of(artifact, texts=MODEL_TEXTS):
    """The texts as a net of this task is asked about them."""
    from doctune.inference.examples import QuestionExamples, TargetExamples, TextExamples

    if artifact.task == "question_answering":
        contexts = tuple(text for text in texts if text)
        questions = ("Take two?", "invoice 13?") * len(contexts)
        return QuestionExamples("made texts", questions[: len(contexts)], contexts, (("sugar",),) * len(contexts))
    if artifact.targets:
        return TargetExamples("made texts", tuple(target.spec for target in artifact.targets), tuple(texts))
    return TextExamples("made texts", artifact.labels, tuple(texts))


@pytest.fixture(scope="session")
def model_texts():
    """`MODEL_TEXTS`."""
    return MODEL_TEXTS


@pytest.fixture(scope="session")
def model_examples():
    """`examples_of`: an artifact -> examples to compare its nets on."""
    return examples_of


def declare_token_types(folder):
    """Say in a tokenizer, as those of pretrained BERTs do, that its model was trained with token types."""
    path = folder / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | names))


@pytest.fixture(scope="session")
def exported_model(tiny_model, tmp_path_factory):
    """A function: task, kind of encoder -> a `tiny_model` with its ONNX nets, int8 too; not to be changed."""
    from doctune.inference import export
    from doctune.inference.artifact import load_artifact

    made = {}
    trace = export._export_graphs  # the real one, also while `traced_before` stands in for it

    def make(task="classification", kind="distilbert"):
        if (task, kind) not in made:
            folder = tmp_path_factory.mktemp(f"exported_{task}_{kind}") / "model"
            shutil.copytree(tiny_model(task, kind), folder)
            if kind == "bert":
                declare_token_types(folder)
            artifact = load_artifact(folder)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(export, "_export_graphs", trace)
                patch.setattr(export, "MIN_AGREEMENT", 0.0)  # what the random nets lose to int8 is not the point
                export.export(artifact, examples_of(artifact), int8=True)
            made[task, kind] = folder
        return made[task, kind]

    return make


@pytest.fixture
def traced_before(exported_model, monkeypatch):
    """Exporting a `tiny_model` traces nothing again, which takes seconds: it has the files of `exported_model`."""
    from doctune.inference import export
    from doctune.inference.nets import onnx_files

    def copy_graphs(artifact, onnx):
        made = exported_model(artifact.task)
        onnx.mkdir()
        for path in onnx_files(artifact, "onnx", onnx).values():
            shutil.copy(made / "onnx" / path.name, path)

    monkeypatch.setattr(export, "_export_graphs", copy_graphs)
