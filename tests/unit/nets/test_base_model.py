import hashlib
import json

import pytest

from doctune.errors import ArtifactError
from doctune.nets.base_model import BaseModel, base_model_of, require_same_base, weight_files, weights_sha256


def test_a_folder_is_told_apart_by_what_sha256sum_says_of_its_weights(tiny_encoder):
    import transformers as hf

    folder = tiny_encoder("bert")
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert base_model_of(hf.AutoModel.from_pretrained(folder)) == BaseModel(str(folder), None, expected)


def test_weights_in_several_files_count_in_name_order(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"second")
    (tmp_path / "a.safetensors").write_bytes(b"first ")
    index = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_sha256(tmp_path) == hashlib.sha256(b"first second").hexdigest()
    (tmp_path / "pytorch_model.bin").write_bytes(b"older")
    assert [path.name for path in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]


def test_a_folder_without_weights_is_said(tmp_path):
    with pytest.raises(ArtifactError) as refused:
        weight_files(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} has no weights: neither model.safetensors nor pytorch_model.bin is in it."
    )


def test_a_model_of_the_hub_is_fixed_by_its_commit(tmp_path):
    require_same_base(BaseModel("someone/model", "0123abcd", None), tmp_path)
