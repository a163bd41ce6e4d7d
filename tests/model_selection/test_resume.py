"""A sweep that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import sktransfer

SCRIPT = """
import json
import sys
import time
from pathlib import Path

import numpy as np

from sktransfer.feature_extraction import BaseExtractor, Extraction
from sktransfer.model_selection import ModelSelector

folder = Path(sys.argv[1])


class Slow(BaseExtractor):
    def __init__(self, power):
        self.power = power

    def extract(self, X, *, source_proba=False):
        time.sleep(float(sys.argv[2]))
        with (folder / "log.txt").open("a") as file:
            file.write(f"{self.power}\\n")
        return Extraction({"": X**self.power})


if __name__ == "__main__":
    X = np.random.default_rng(0).uniform(size=(60, 4))
    y = np.arange(60) % 3
    selector = ModelSelector(
        [(f"power{p}", Slow(p)) for p in range(1, 7)],
        memory=str(folder / "cache"),
    ).fit(X, y)
    (folder / "ranking.json").write_text(json.dumps(selector.ranking_))
"""


def start(folder, seconds):
    script = folder / "sweep.py"
    script.write_text(SCRIPT)
    path = [str(Path(sktransfer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep)},
    )


def read(log):
    return log.read_text().split() if log.exists() else []


def test_only_what_is_missing_is_extracted(tmp_path):
    log = tmp_path / "log.txt"
    sweep = start(tmp_path, 0.5)
    try:
        deadline = time.monotonic() + 60
        while len(read(log)) < 3:
            assert sweep.poll() is None, "the sweep ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(sweep.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    finally:
        sweep.kill()
        sweep.wait()
    done = read(log)
    assert 3 <= len(done) < 6
    assert not (tmp_path / "ranking.json").exists()

    log.unlink()
    assert start(tmp_path, 0).wait(timeout=60) == 0
    again = read(log)
    # All but the last are kept for certain; that one may have been cut short.
    everything = [str(power) for power in range(1, 7)]
    assert again in (everything[len(done) :], everything[len(done) - 1 :])
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert sorted(ranking) == [f"power{power}" for power in everything]
