from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from doctune.reports import plots

HISTORY = [
    {"epoch": 1, "train_loss": None, "val_loss": 1.5, "val_f1_macro": 0.4},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 0.9, "val_f1_macro": 0.7},
]


def lines_of(figure):
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}


def texts_of(figure):
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def test_loss_curves_show_both_losses_and_the_best_epoch():
    lines = lines_of(plots.loss_curves(HISTORY, best_epoch=2))
    np.testing.assert_array_equal(lines["training, as minimised (weighted, smoothed)"], [np.nan, 1.0])
    assert list(lines["validation, plain"]) == [1.5, 0.9]
    assert "best epoch (2)" in lines


def test_a_loss_that_was_never_measured_has_no_curve():
    assert list(lines_of(plots.loss_curves([{"epoch": 1, "val_loss": 1.0}], None))) == ["validation, plain"]


def test_the_training_loss_that_the_gap_is_measured_from_has_its_own_curve():
    history = [HISTORY[0], HISTORY[1] | {"train_eval_loss": 0.75}]
    lines = lines_of(plots.loss_curves(history, None))
    np.testing.assert_array_equal(lines["training sample, evaluation mode"], [np.nan, 0.75])


def columns_of(figure):
    return figure.legends[0]._ncols


def test_a_legend_has_as_many_columns_as_fit():
    assert columns_of(plots.loss_curves(HISTORY, 2)) == 2
    assert columns_of(plots.loss_curves(HISTORY, 2, plots.NARROW)) == 1
    assert columns_of(plots.metric_curve(HISTORY, {"val_f1_macro": "macro F1"}, 2, {})) == 3


def test_metric_curve_shows_baselines_on_the_whole_range():
    figure = plots.metric_curve(HISTORY, {"val_f1_macro": "macro F1"}, 2, {"majority class": 0.25})
    assert list(lines_of(figure)["majority class (0.250)"]) == [0.25, 0.25]
    assert figure.axes[0].get_ylim() == (0, 1)


def test_a_metric_beyond_1_is_not_cut_off():
    history = [{"epoch": 1, "val_f1": 88.0}]
    assert plots.metric_curve(history, {"val_f1": "F1"}, None, {}).axes[0].get_ylim()[1] > 88


def test_confusion_matrix_writes_the_counts_that_are_not_zero():
    figure = plots.confusion_matrix(np.array([[3, 1], [0, 2]]), ["a", "b"], "Test")
    assert texts_of(figure) == {(0, 0): "3", (1, 0): "1", (1, 1): "2"}
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.75, 0.25], [0, 1]])


def test_a_label_without_documents_is_an_empty_row():
    figure = plots.confusion_matrix(np.array([[0, 0], [0, 2]]), ["a", "b"], "Test")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[0], [0, 0])


@pytest.mark.parametrize("num_labels", [1, 45, 200])
def test_counts_are_left_out_where_they_do_not_fit(num_labels):
    labels = [f"label {place}" for place in range(num_labels)]
    confusion = np.eye(num_labels, dtype=int) * 123_456_789
    written = len(texts_of(plots.confusion_matrix(confusion, labels, "Test")))
    assert written == (1 if num_labels == 1 else 0)


def test_not_every_one_of_many_names_is_written():
    figure = plots.confusion_matrix(np.eye(200, dtype=int), [f"label {place}" for place in range(200)], "Test")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:3] == ["label 0", "label 3", "label 6"]


def test_strange_names_are_drawn_as_they_are_without_a_warning(tmp_path):
    figure = plots.confusion_matrix(np.eye(3, dtype=int), ["$x_2$", "合同", "a\nb\t$"], "50 $")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(figure, tmp_path / "matrix.png")
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.png"]
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["$x_2$", "合同", "a b $"]


@pytest.mark.parametrize(
    ("name", "width", "short"), [("short", 10, "short"), ("python_script_file", 11, "pytho…_file"), ("ab", 1, "…")]
)
def test_names_lose_their_middle(name, width, short):
    assert plots.shorten(name, width) == short
    assert len(short) <= width


def test_an_svg_is_an_element_of_its_page(read_html):
    text = plots.svg(plots.loss_curves(HISTORY, 2, plots.NARROW), 'Losses & "more"')
    read = read_html(text)
    assert text.startswith('<svg viewBox="0 0 374.4 288"')
    assert text.endswith("</svg>")
    assert read.open == []
    assert read.named("svg")[0]["aria-label"] == 'Losses & "more"'
    assert {"Loss", "epoch", "best epoch (2)", "validation, plain"} <= set(read.text)
    assert "#000000" not in text
    assert "currentColor" in text
    assert "http" not in text


def test_two_svgs_of_a_page_share_no_id(read_html):
    pictures = [read_html(plots.svg(plots.loss_curves(HISTORY, 2), name)) for name in ("first", "second")]
    ids = [{attributes["id"] for _, attributes in read.tags if "id" in attributes} for read in pictures]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_png_has_a_palette(tmp_path):
    plots.save(plots.loss_curves(HISTORY, 2), tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "P")


def test_the_losses_of_folds_are_a_curve_each():
    lines = lines_of(plots.fold_losses({0: HISTORY, 3: HISTORY[:1]}))
    assert {name: list(values) for name, values in lines.items()} == {"fold 0": [1.5, 0.9], "fold 3": [1.5]}


def test_the_scores_of_folds_stand_with_their_means_on_the_whole_range():
    figure = plots.fold_scores([0, 2], {"validation": [0.5, 0.75], "test": [0.5, None]})
    lines = lines_of(figure)
    assert list(lines["validation"]) == [0.5, 0.75]
    assert list(lines["mean of validation (0.625)"]) == [0.625, 0.625]
    assert list(lines["test"]) == [0.5]
    assert figure.axes[0].get_ylim() == (0, 1)
