"""Extraction on Ray is that of this machine, also where a worker dies."""

import os
import signal
import threading
import time

import psutil
import pytest

from doctune.errors import ConfigError
from doctune.text import cluster
from doctune.text.cluster import extract_on_ray
from doctune.text.sandbox import Limits, extract_files
from doctune.text.settings import ExtractSettings


@pytest.fixture
def files(tmp_path):
    """60 files: texts, an empty one, a damaged one, one that is missing and one whose name is no text."""
    paths = []
    for number in range(56):
        path = tmp_path / f"{number:02}.txt"
        path.write_text(f"Text {number}: " + "word " * number)
        paths.append(path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "damaged.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    strange = tmp_path / os.fsdecode(b"stra\xffnge.txt")
    strange.write_text("Its name is in no encoding.")
    return [*paths, tmp_path / "empty.txt", tmp_path / "damaged.pdf", tmp_path / "missing.txt", strange]


@pytest.fixture(scope="module")
def ray():
    """A cluster of two workers on this machine."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def ray_workers():
    """The processes in which tasks of Ray Data run now."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::") and "Map" in process.name()
    ]


def test_documents_are_those_of_this_machine_in_the_same_order(ray, files):
    ours = [*extract_on_ray(files, ExtractSettings(max_chars=100), Limits(), batch_files=7)]
    assert ours == [*extract_files(files, ExtractSettings(max_chars=100), Limits())]
    assert [document.status for document in ours[-4:]] == ["empty", "damaged", "unreadable", "ok"]
    assert ray.is_initialized()  # what was there before is left there


def test_a_worker_that_is_killed_costs_no_document(ray, files):
    killed = []

    def kill_one():
        while not killed:
            for process in ray_workers():
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
                break
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    ours = [*extract_on_ray(files, ExtractSettings(), Limits(), batch_files=4)]
    killer.join(timeout=60)
    assert len(killed) == 1
    assert ours == [*extract_files(files, ExtractSettings(), Limits())]


def test_a_cluster_that_is_not_there_is_named(ray, files):
    ray.shutdown()
    with pytest.raises(ConfigError, match=r"prepare\.ray_address=auto: no Ray cluster answers there \("):
        next(extract_on_ray(files, ExtractSettings(), Limits(), address="auto"))


def test_without_ray_the_extra_is_named(monkeypatch, files):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError) as refused:
        next(cluster.extract_on_ray(files, ExtractSettings(), Limits()))
    assert str(refused.value) == "prepare.engine=ray needs ray: pip install 'doctune[scale]'."
