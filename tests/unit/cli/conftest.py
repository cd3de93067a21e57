"""What tests of commands share: adapters of tiny models."""

import shutil

import pytest


def save_adapted_model(folder, base, *, quantised):
    """The `model/` folder of an adapter that says something, of a whole one."""
    import torch

    from doctune.inference.artifact import load_artifact
    from doctune.inference.graphs import load_net
    from doctune.nets.adapter_files import save_net
    from doctune.nets.adapters import AdapterSettings, adapt
    from doctune.nets.quantised import Quantisation

    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    net = load_net(load_artifact(base))
    adapt(net, AdapterSettings(4, 8, 0.0, quantisation=Quantisation() if quantised else None))
    torch.manual_seed(2)
    for name, weight in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    save_net(net, folder)
    return folder


@pytest.fixture(scope="session")
def adapted_model(tiny_model, tmp_path_factory):
    """A function: task -> the folder of an adapter of a `tiny_model`, which is not to be changed."""
    made = {}

    def make(task="classification", *, quantised=False):
        if (task, quantised) not in made:
            folder = tmp_path_factory.mktemp(f"adapted_{task}") / "model"
            made[task, quantised] = save_adapted_model(folder, tiny_model(task), quantised=quantised)
        return made[task, quantised]

    return make
