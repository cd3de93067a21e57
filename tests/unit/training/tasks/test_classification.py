import pytest

from doctune.labels import Labels
from doctune.training import build
from doctune.training.data.file_content import Facts
from doctune.training.tasks.classification import chance, document_loss


def test_class_weights_are_computed_from_what_an_epoch_shows(compose):
    facts = Facts(Labels(("x", "y")), (30, 10), (3, 1), (30, 30), 10)
    assert document_loss(compose().loss, facts).weights.tolist() == [1, 1]


def test_chance_is_what_the_class_shares_give(compose):
    found = chance(Facts(Labels(("x", "y")), (30, 10), (3, 1), (30, 10), 10))
    assert found.uniform_loss == pytest.approx(0.6931, abs=1e-4)
    assert found.levels["accuracy"] == 0.75


@pytest.mark.parametrize(("precision", "fused"), [("16-mixed", False), ("bf16-mixed", True), ("32", True)])
def test_gradients_with_a_scale_are_not_left_to_a_fused_optimiser(compose, precision, fused):
    # It would take the scale back itself, after the gradients were clipped with it.
    assert build.optimisation(compose(), 10, precision).fused is fused
