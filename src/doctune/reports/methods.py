"""The paragraph on methods that a publication needs, made from a run's configuration, environment and report.

Whatever a run did not record is left out. Cited are the sources of methods, by author and year.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doctune.reports import target_methods
from doctune.reports.numbers import counted, decimal, duration, whole
from doctune.reports.phrases import listed
from doctune.reports.records import CLASSIFICATION, MULTI_TASK, QUESTION_ANSWERING
from doctune.reports.verdict import ALL_METRIC_WORDS, PART_WORDS

Report = Mapping[str, Any]
Config = Mapping[str, Any]

ARCHITECTURES = {
    "bert": "a BERT encoder (Devlin et al. 2019)",
    "deberta-v2": "a DeBERTa encoder (He et al. 2021)",
    "distilbert": "a DistilBERT encoder (Sanh et al. 2019)",
    "electra": "an ELECTRA encoder (Clark et al. 2020)",
    "longformer": "a Longformer encoder (Beltagy et al. 2020)",
    "modernbert": "a ModernBERT encoder (Warner et al. 2024)",
    "mpnet": "an MPNet encoder (Song et al. 2020)",
    "roberta": "a RoBERTa encoder (Liu et al. 2019)",
    "xlm-roberta": "an XLM-RoBERTa encoder (Conneau et al. 2020)",
}
CLASS_WEIGHTS = {
    "balanced": "class weights inversely proportional to the class frequencies (King & Zeng 2001)",
    "effective": "class weights by the effective number of samples (Cui et al. 2019)",
}
SAMPLINGS = {
    "oversample": "In each epoch documents of rare classes were shown more often.",
    "undersample": "In each epoch documents of common classes were shown less often.",
}
SCHEDULES = {
    "linear": "fell linearly to zero",
    "cosine": "fell to zero along a cosine (Loshchilov & Hutter 2017)",
    "one_cycle": "fell to nearly zero, in one cycle (Smith & Topin 2019)",
    "constant": "stayed constant",
}
PRECISIONS = {
    "32": "in 32-bit precision",
    "32-true": "in 32-bit precision",
    "16-mixed": "in mixed precision with 16-bit floats (Micikevicius et al. 2018)",
    "bf16-mixed": "in mixed precision with bfloat16 (Kalamkar et al. 2019)",
}
BASELINES = {
    "tfidf_svm": "a linear support vector machine on TF-IDF features (Joachims 1998)",
    "forest": "a random forest on TF-IDF features (Breiman 2001)",
    "majority": "the most frequent training label",
    "tfidf_logistic": "balanced logistic regressions on TF-IDF features (Lewis et al. 2004)",
    "label_prior": "the shares of the labels in training",
    "lexical": "the rarest words of the sentence that shares most with the question",
    "untrained": "the same model before training",
    "no_answer": "leaving every question unanswered",
}
SQUAD_SCRIPTS = {
    "1.1": "the SQuAD 1.1 evaluation script (Rajpurkar et al. 2016)",
    "2.0": "the SQuAD 2.0 evaluation script (Rajpurkar et al. 2018)",
}
SOFTWARE = {
    "doctune": "doctune {}",
    "torch": "PyTorch {} (Paszke et al. 2019)",
    "lightning": "PyTorch Lightning {} (Falcon et al. 2019)",
    "transformers": "Transformers {} (Wolf et al. 2020)",
    "hydra-core": "Hydra {} (Yadan 2019)",
    "python": "Python {}",
}


@dataclass(frozen=True)
class Words:
    """What a task calls its head, what it judges and what its batches are made of."""

    head: str
    judged: str
    learnt: str


WORDS = {
    CLASSIFICATION: Words("classification head", "document", "document"),
    QUESTION_ANSWERING: Words("span head", "question", "window"),
    MULTI_TASK: Words("heads", "text", "text"),
}


def describe_methods(report: Report, config: Config) -> str:
    """One paragraph of English sentences.

    Args:
        report: what `build_report` gives.
        config: what Hydra composed for the run; empty where it is not known.
    """
    sentences = [
        _model(report, config),
        _targets(report, config),
        _frozen(report, config),
        _input(report, config),
        _division(report, config),
        _sampling(config),
        _augmentation(report, config),
        _loss(report, config),
        _optimiser(report, config),
        _rate(report, config),
        _clipping(config),
        _computation(report, config),
        _stopping(report, config),
        _selection(report),
        _decoding(report, config),
        _score(report),
        _comparison(report),
        _software(report, config),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _model(report: Report, config: Config) -> str:
    model = report["model"]
    if not model.get("name"):
        return ""
    kind = model.get("architecture")
    head = "linear heads" if _is_multi_task(report) else f"a {_words(report).head}"
    encoder = f", {head} on {ARCHITECTURES.get(kind, f'a {kind} encoder')}" if kind else ""
    size = f", with {whole(model['total'])} parameters" if model.get("total") else ""
    return f"The model was {model['name']}{encoder}{size}{_origin(config)}."


def _origin(config: Config) -> str:
    """Where its weights came from; the configuration of a model from scratch has no path of weights."""
    model = config.get("model") or {}
    if not model:
        return ""
    return f", fine-tuned from {_last_parts(model['path'])}" if model.get("path") else ", trained from random weights"


def _targets(report: Report, config: Config) -> str:
    return target_methods.heads(report, config.get("data") or {}) if _is_multi_task(report) else ""


def _frozen(report: Report, config: Config) -> str:
    trainable = report["model"].get("trainable")
    left = f", which left {counted(trainable, 'parameter')} to train" if trainable else ""
    strategy = _value(config, "finetune.strategy")
    if strategy == "head":
        return f"The encoder was frozen{left}."
    if strategy == "partial":
        layers = _value(config, "finetune.layers")
        first = "first encoder layer" if layers == 1 else f"first {layers} encoder layers"
        return f"The embeddings and the {first} were frozen{left}."
    if strategy in ("lora", "qlora"):
        return _adapted(config, strategy, left)
    if strategy == "gradual":
        return "The head was trained alone at first, then one more encoder layer in each epoch (Howard & Ruder 2018)."
    return ""


def _adapted(config: Config, strategy: str, left: str) -> str:
    rank, targets = _value(config, "finetune.rank"), _value(config, "finetune.target_modules")
    size = f" of rank {rank}" if rank else ""
    beside = f" beside {', '.join(targets)}" if isinstance(targets, list) else ""
    in_bits = ", in four bits (NF4; Dettmers et al. 2023)," if strategy == "qlora" else ""
    return f"The encoder{in_bits} was frozen, and low-rank adapters{size}{beside} learnt (Hu et al. 2022){left}."


def _input(report: Report, config: Config) -> str:
    length = _value(config, "data.max_length")
    if _is_reader(report):
        return _windows(length, config)
    if length is None or _value(config, "data.kind") not in ("file_content", "multi_task"):
        return ""
    return f"Each {_words(report).judged} was represented by its first {whole(length)} tokens."


def _windows(length: int | None, config: Config) -> str:
    if length is None:
        return ""
    shared = _value(config, "data.doc_stride")
    overlap = "" if shared is None else f", neighbouring ones sharing {counted(shared, 'token')} of the context"
    return f"Each question was read beside its context in windows of {whole(length)} tokens{overlap}."


def _division(report: Report, config: Config) -> str:
    parts = report["account"].get("parts") or {}
    if not parts.get("train"):
        return ""
    if _is_reader(report):
        return _division_of_questions(report, parts, config)
    test = f" and {whole(parts['test'])} for testing" if parts.get("test") else ""
    val = f"{whole(parts.get('val'))} for validation"
    classes = "" if _is_multi_task(report) else f" of {counted(len(report['labels']), 'class', 'classes')}"
    used = f"{counted(parts['train'], _words(report).judged)}{classes}"
    verb = "was" if parts["train"] == 1 else "were"
    sizes = f"{used} {verb} used for training{', ' if test else ' and '}{val}{test}"
    return f"{sizes}{_copies(report, config)}{_fold(report, config)}."


def _division_of_questions(report: Report, parts: Mapping[str, int], config: Config) -> str:
    articles = report["account"].get("articles") or {}

    def size(part: str) -> str:
        about = f" about {counted(articles[part], 'article')}" if articles.get(part) else ""
        return f"{counted(parts[part], 'question')}{about}"

    used = [
        f"{size(name)} {purpose}"
        for name, purpose in (("train", "for training"), ("val", "for validation"), ("test", "for testing"))
        if parts.get(name)
    ]
    return f"There were {listed(used)}; no context stood in two parts{_fold(report, config)}."


def _copies(report: Report, config: Config) -> str:
    noun, threshold = _words(report).judged, _value(config, "data.duplicate_threshold")
    if threshold is None:
        return ""
    if threshold >= 1:
        return f"; copies of a {noun} stayed in one part"
    return (
        f"; {noun}s whose sets of word shingles had a Jaccard similarity of at least {threshold:g} (Broder 1997) "
        "stayed in one part"
    )


def _fold(report: Report, config: Config) -> str:
    if _value(config, "split.kind") != "kfold" or _value(config, "split.fold") is None:
        return ""
    return f"; the test {_words(report).judged}s were fold {config['split']['fold'] + 1} of {config['split']['folds']}"


def _sampling(config: Config) -> str:
    return SAMPLINGS.get(_value(config, "data.sampling.method"), "")


def _augmentation(report: Report, config: Config) -> str:
    views = []
    if share := _value(config, "data.augment.random_window"):
        windows = counted(_value(config, "data.augment.windows") or 1, "window")
        noun = _words(report).judged
        views.append(f"one of the first {windows} of a {noun} instead of its first with probability {share:g}")
    if share := _value(config, "data.augment.token_dropout"):
        views.append(f"the mask instead of a token with probability {share:g} (Dai & Le 2015)")
    return f"Training showed {' and '.join(views)}." if views else ""


def _loss(report: Report, config: Config) -> str:
    if _is_multi_task(report):
        return target_methods.losses(report, config.get("loss") or {}, CLASS_WEIGHTS)
    if not config.get("loss"):
        return ""
    name = "cross entropy"
    if _is_reader(report):
        name = "the mean of the cross entropies of the answer's first and last token (Devlin et al. 2019)"
    elif _value(config, "loss.name") == "focal":
        name = f"the focal loss with a gamma of {config['loss']['gamma']:g} (Lin et al. 2017)"
    details = []
    if weights := CLASS_WEIGHTS.get(_value(config, "loss.class_weights")):
        details.append(weights)
    if smoothing := _value(config, "loss.label_smoothing"):
        details.append(f"label smoothing of {smoothing:g} (Szegedy et al. 2016)")
    return f"The loss was {name}{', with ' if details else ''}{' and '.join(details)}."


def _optimiser(report: Report, config: Config) -> str:
    if not config.get("optim"):
        return ""
    settings = []
    if decay := _value(config, "optim.weight_decay"):
        settings.append(f" with a weight decay of {decay:g}")
    if batch := _value(config, "trainer.effective_batch_size"):
        settings.append(f" in batches of {whole(batch)} {_words(report).learnt}s{_accumulation(report, config, batch)}")
    if epochs := _value(config, "trainer.max_epochs"):
        settings.append(f" for at most {counted(epochs, 'epoch')}")
    what = "Their sum" if _is_multi_task(report) else "It"
    return f"{what} was minimised with AdamW (Loshchilov & Hutter 2019){''.join(settings)}."


def _accumulation(report: Report, config: Config, batch: int) -> str:
    """How a batch was put together; a run that ran out of memory recorded the smaller size that it went on with."""
    learnt = _words(report).learnt
    micro = report["micro_batch_size"] or _value(config, "trainer.micro_batch_size") or batch
    return "" if micro == batch else f" (gradients of {whole(batch // micro)} passes over {whole(micro)} {learnt}s)"


def _rate(report: Report, config: Config) -> str:
    rate = _value(config, "optim.lr")
    if rate is None:
        return ""
    head = rate * (_value(config, "optim.head_lr_multiplier") or 1)
    if _value(config, "finetune.strategy") == "head":
        words = _plain(head)
    else:
        words = _plain(rate) + ("" if head == rate else f" ({_plain(head)} for the {_words(report).head})")
    rise = _warmup(config)
    rose = f"rose to {words} over {rise}" if rise else f"started at {words}"
    after = SCHEDULES.get(_value(config, "schedule.name"))
    decay = _value(config, "optim.layer_decay")
    layers = f", each encoder layer at {decay:g} of the rate of the layer above it (Clark et al. 2020)" if decay else ""
    return f"The learning rate {rose}{f' and then {after}' if after else ''}{layers}."


def _warmup(config: Config) -> str:
    """The part of training in which the rate rises; a number of steps overrules the ratio."""
    steps, ratio = _value(config, "schedule.warmup_steps"), _value(config, "schedule.warmup_ratio")
    if steps is not None:
        return f"the first {counted(steps, 'step')}" if steps else ""
    return f"the first {100 * ratio:.3g} % of all steps" if ratio else ""


def _clipping(config: Config) -> str:
    limit = _value(config, "trainer.gradient_clip_val")
    return f"Gradients were clipped to a norm of {limit:g} (Pascanu et al. 2013)." if limit else ""


def _computation(report: Report, config: Config) -> str:
    precision = report["precision"]
    machine = _machine(report, config)
    where = f" on {machine}" if machine else ""
    how = f" {PRECISIONS.get(str(precision), f'in precision {precision}')}" if precision else ""
    if report["training_seconds"] is None:
        return f"Training ran{how}{where}." if how or where else ""
    return f"Training{how}{where} took {duration(report['training_seconds'])}."


def _machine(report: Report, config: Config) -> str:
    """The accelerators where they were used, else the processor."""
    hardware = report["hardware"]
    gpus = Counter(hardware.get("gpus") or [])
    if gpus and _value(config, "trainer.accelerator") != "cpu":
        return " and ".join(f"{count} × {name}" for name, count in gpus.items())
    cores = f" ({counted(hardware['cores'], 'core')})" if hardware.get("cores") else ""
    return f"the processor {hardware['processor']}{cores}" if hardware.get("processor") else ""


def _stopping(report: Report, config: Config) -> str:
    epochs = counted(report["epochs"], "epoch")
    if report["stopped"] in (None, "max_epochs"):
        return f"Training ended after {epochs}."
    if report["stopped"] == "gap":
        return f"Training was stopped after {epochs}, when the gap between validation and training loss was critical."
    if report["stopped"] != "early_stopping":
        return f"Training was stopped after {epochs} ({report['stopped'].replace('_', ' ')})."
    patience = _value(config, "callbacks.early_stopping.patience")
    since = "no longer improved" if patience is None else f"had not improved for {counted(patience, 'epoch')}"
    return f"Training was stopped after {epochs}, when the {_monitored(report)} {since}."


def _selection(report: Report) -> str:
    if report["best_epoch"] is None:
        return ""
    return f"The weights of epoch {report['best_epoch']}, the best by {_monitored(report)}, were kept."


def _monitored(report: Report) -> str:
    name = report["monitor"].get("metric", report["comparison"]["metric"]).split("/")[-1]
    # The words of a loss are those of its reports; here that of a training run is meant.
    return "validation loss" if name == "loss" else f"validation {ALL_METRIC_WORDS.get(name, name)}"


def _decoding(report: Report, config: Config) -> str:
    """How a reader's answers, or the labels of a set, were chosen and judged."""
    if _is_multi_task(report):
        return target_methods.thresholds(report)
    if not _is_reader(report):
        return ""
    most = _value(config, "data.max_answer_length")
    limit = "" if most is None else f" of at most {counted(most, 'token')}"
    threshold = report["no_answer_threshold"]
    unless = (
        ""
        if threshold is None
        else f"; a question was left unanswered where having no answer scored more than {decimal(threshold)} above the "
        "span, a threshold chosen on validation questions"
    )
    return (
        f"The answer was the span{limit} with the highest score of all windows (Devlin et al. 2019){unless}. Exact "
        f"match and F1 are those of {SQUAD_SCRIPTS[report['version']]}."
    )


def _score(report: Report) -> str:
    if _is_multi_task(report):
        return target_methods.scores(report)
    part, metric = report["part"], report["comparison"]["metric"]
    scores = report[part]
    chose = ", which had also chosen the epoch" if part == "val" else ""
    bounds = scores["ci95"].get(metric)
    interval = (
        f" (95 % percentile bootstrap interval {decimal(bounds[0])} to {decimal(bounds[1])}; Efron 1979)"
        if bounds
        else ""
    )
    noun = _words(report).judged
    judged = counted(scores[f"{noun}s"], f"{PART_WORDS[part]} {noun}")
    score = f"{ALL_METRIC_WORDS[metric]} was {decimal(scores[metric])}{interval}{_beside(report)}"
    return f"On the {judged}{chose}, {score}."


def _beside(report: Report) -> str:
    """The other of a reader's two scores."""
    if not _is_reader(report):
        return ""
    other = "exact_match" if report["comparison"]["metric"] == "f1" else "f1"
    return f" and {ALL_METRIC_WORDS[other]} {decimal(report[report['part']][other])}"


def _comparison(report: Report) -> str:
    """What the baselines scored on the same documents or questions."""
    if _is_multi_task(report):
        return target_methods.baselines(report, BASELINES)
    part, metric = report["part"], report["comparison"]["metric"]
    known = {name: scores[part] for name, scores in report["baselines"].items() if metric in (scores.get(part) or {})}
    if not known:
        return ""
    scored = [f"{BASELINES.get(name, name)} scored {decimal(scores[metric])}" for name, scores in known.items()]
    return f"On the same {_words(report).judged}s {listed(scored)}."


def _software(report: Report, config: Config) -> str:
    versions = report["versions"]
    used = [words.format(versions[name]) for name, words in SOFTWARE.items() if versions.get(name)]
    seed = "" if report["seed"] is None else f" with the random seed {report['seed']}"
    split_seed = _value(config, "split.seed")
    if seed and split_seed is not None and split_seed != report["seed"]:
        seed += f" ({split_seed} for the split)"
    if not used:
        return f"It was run{seed}." if seed else ""
    return f"We used {listed(used)}{seed}."


def _words(report: Report) -> Words:
    return WORDS[report.get("task", CLASSIFICATION)]


def _is_reader(report: Report) -> bool:
    return bool(report.get("task") == QUESTION_ANSWERING)


def _is_multi_task(report: Report) -> bool:
    return bool(report.get("task") == MULTI_TASK)


def _value(config: Config, key: str) -> Any:
    """The value of a key such as `trainer.max_epochs`; None where the configuration lacks it."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _last_parts(path: str) -> str:
    """A model's name on the hub as it is; of a local folder the name alone, since nobody else has its path."""
    parts = [part for part in str(path).replace("\\", "/").split("/") if part]
    is_hub_name = len(parts) <= 2 and not str(path).startswith((".", "/", "~"))
    return "/".join(parts) if is_hub_name else parts[-1]


def _plain(rate: float) -> str:
    """A learning rate without the zero that Python pads its exponent with: 2e-5."""
    return f"{rate:g}".replace("e-0", "e-")
