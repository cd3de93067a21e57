"""A language model that was tuned on instructions, from an exported `model/` folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doctune.errors import ArtifactError, ConfigError
from doctune.inference.artifact import GENERATION, Artifact, load_artifact
from doctune.inference.generation import Completion, Sampling, complete
from doctune.inference.graphs import load_net
from doctune.nets.chat import template_of
from doctune.nets.encoder import max_window, pretrained_tokenizer
from doctune.text.chat import USER, Message, TemplateRefusedError


class Generator:
    """A tuned language model ready to be prompted.

    Args:
        artifact: settings of the model folder, of the task `artifact.GENERATION`.
        batch_size: prompts that are completed together.

    Raises:
        ArtifactError: weights or tokenizer cannot be loaded.
    """

    def __init__(self, artifact: Artifact, batch_size: int = 8) -> None:
        self.artifact = artifact
        self._net = load_net(artifact)
        self._tokenizer = pretrained_tokenizer(str(artifact.folder))
        self._template = template_of(self._tokenizer)
        self._batch_size = batch_size

    def generate(self, prompts: Sequence[str], sampling: Sampling | None = None) -> list[Completion]:
        """What the model writes after each prompt, in order; prompts are shown to it as in training.

        Args:
            prompts: what a user says, without any template.
            sampling: greedy or drawn, and how long.

        Raises:
            ConfigError: a prompt leaves no room for an answer, or the chat template refuses it.
        """
        sampling = sampling or Sampling()
        shown = [self._shown(prompt) for prompt in prompts]
        self._require_room(shown, sampling)
        return complete(self._net, self._tokenizer, shown, sampling, self._batch_size)

    def _shown(self, prompt: str) -> str:
        try:
            return self._template([Message(USER, prompt)], for_answer=True)
        except TemplateRefusedError as error:
            raise ConfigError(f"The prompt cannot be shown to the model: {error}.") from error

    def _require_room(self, shown: Sequence[str], sampling: Sampling) -> None:
        room = max_window(self._net.config) - sampling.max_new_tokens
        longest = max(
            (len(ids) for ids in self._tokenizer(list(shown), add_special_tokens=False)["input_ids"]), default=0
        )
        if longest > room:
            raise ConfigError(
                f"The prompt has {longest:,} tokens, and with {sampling.max_new_tokens:,} new ones the model reads at "
                f"most {max_window(self._net.config):,}. Shorten the prompt, or ask for fewer new tokens."
            )


def load_generator(run: str | Path, *, batch_size: int = 8) -> Generator:
    """The language model of a run folder or of a `model/` folder, ready to be prompted.

    Raises:
        ArtifactError: there is no usable model, or it writes no text.
    """
    artifact = load_artifact(Path(run))
    if artifact.task != GENERATION:
        raise ArtifactError(
            f"{artifact.folder} was trained for {artifact.task}; text is written by a language model, which a run with "
            "data=instructions tunes."
        )
    return Generator(artifact, batch_size)
