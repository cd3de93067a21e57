import pytest
import torch

from doctune.labels import Labels
from doctune.nets.adapters import AdapterSettings, adapt, saved_weights
from doctune.nets.assemble import classifier
from doctune.nets.encoder import pretrained_config
from doctune.nets.losses import DocumentLoss
from doctune.training.modules.classification import ClassificationModule
from doctune.training.optim import Optimisation

PLAN = Optimisation(1e-3, 2.0, 0.01, "linear", warmup_steps=2, total_steps=10)


@pytest.fixture
def make(tiny_encoder):
    def build(*, adapted):
        folder = str(tiny_encoder("bert"))
        net = classifier(pretrained_config(folder), Labels(("x", "y")), folder)
        if adapted:
            adapt(net, AdapterSettings(4, 8, 0.0))
        return ClassificationModule(net, DocumentLoss("cross_entropy", torch.ones(2)), PLAN)

    return build


def test_the_state_of_an_adapted_net_has_no_base_and_is_taken_up_whole(make):
    torch.manual_seed(1)
    first = make(adapted=True)
    torch.manual_seed(2)
    second = make(adapted=True)
    state = first.state_dict()
    assert {name for name in state if name.startswith("net.")} == {f"net.{name}" for name in saved_weights(first.net)}
    assert not torch.equal(state["net.classifier.weight"], second.net.classifier.weight)
    second.load_state_dict(state)
    assert all(torch.equal(weight, state[name]) for name, weight in second.state_dict().items())


def test_the_state_of_a_whole_net_has_everything(make):
    module = make(adapted=False)
    weights = {name.removeprefix("net.") for name in module.state_dict() if name.startswith("net.")}
    assert weights == set(module.net.state_dict())


@pytest.mark.parametrize("adapted", [True, False])
def test_a_state_that_lacks_something_is_refused(make, adapted):
    module = make(adapted=adapted)
    state = module.state_dict()
    del state["net.classifier.bias"]
    with pytest.raises(RuntimeError) as refused:
        module.load_state_dict(state)
    assert str(refused.value) == (
        "The state of another ClassificationModule: ['net.classifier.bias'] are missing, [] are left over."
    )


def test_the_state_of_a_whole_net_is_not_that_of_an_adapted_one(make):
    with pytest.raises(RuntimeError, match=r"lora_A\.default\.weight.* are missing, .*are left over\."):
        make(adapted=True).load_state_dict(make(adapted=False).state_dict())
