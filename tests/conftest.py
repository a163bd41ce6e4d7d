"""Fixtures and settings shared by all tests."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

# A torchvision that does not match torch: for the child processes, and for this one.
_MEND = Path(__file__).parent / "torchvision_mend"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_MEND), *filter(None, [os.environ.get("PYTHONPATH")])]
)
runpy.run_path(str(_MEND / "sitecustomize.py"))

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests side by side use all cores already: more threads only get in their way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threadpool_limits(1)

# Examples fit small models; on a busy machine a time limit would only make noise.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", max_examples=20, **_COMMON)
settings.register_profile("ci", max_examples=20, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=500, **_COMMON)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local")
)


@pytest.fixture(scope="session")
def global_random_seed() -> int:
    """Seed of the run: no test may depend on a special one.

    Set SKTRANSFER_TESTS_SEED to an integer to choose it; the default is 0.
    """
    return int(os.environ.get("SKTRANSFER_TESTS_SEED", "0"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data beside the repository; the test is skipped without."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("needs the reference data in ../shared")
    return path
