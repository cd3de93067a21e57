import pytest

from doctune.errors import ConfigError
from doctune.labels import Labels
from doctune.training import build
from doctune.training.data.file_content import Facts
from doctune.training.tasks.classification import chance, document_loss, f1_weights


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


def test_chance_has_every_metric_that_can_be_monitored():
    facts = Facts(Labels(("x", "y")), (30, 10), (3, 1), (30, 10), 10)
    assert "f1_mix" not in chance(facts).levels
    # Always answering x: F1 of x is 6/7, that of y 0.
    assert chance(facts, (1.0, 3.0)).levels["f1_mix"] == pytest.approx(6 / 7 / 4)


def test_weights_of_the_mix_are_in_id_order(compose):
    config = compose("metric.class_weights={b: 3, a: 1}")
    assert f1_weights(config.metric, Labels(("a", "b"))) == (1.0, 3.0)
    assert f1_weights(compose().metric, Labels(("a", "b"))) is None


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("{a: 1, c: 1}", "metric.class_weights names c, which the data does not have and lacks b: give each label a"),
        ("{a: 1}", "metric.class_weights lacks b: give each label a weight, and no other. The labels are a, b."),
        ("{a: 1, b: 1, c: 2, d: 3}", "metric.class_weights names c, d, which the data does not have: give each label"),
    ],
)
def test_weights_of_other_labels_are_refused(compose, weights, sentence):
    with pytest.raises(ConfigError) as caught:
        f1_weights(compose(f"metric.class_weights={weights}").metric, Labels(("a", "b")))
    assert str(caught.value).startswith(sentence)
