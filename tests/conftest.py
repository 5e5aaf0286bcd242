import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from gpu_patch.images import stack

# the same examples in every run, on any machine
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """Memory that is lent again must not hold the right answer of an earlier call by chance."""
    from gpu_patch.device.host_memory import BufferPool

    take = BufferPool.take

    def take_poisoned(pool, shape, dtype):
        array = take(pool, shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF  # NaN, the largest number, or −1
        return array

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BufferPool, "take", take_poisoned)
        yield


def pytest_addoption(parser):
    parser.addoption(
        "--require-gpu", action="store_true", help="fail where the cuda backend cannot be tested"
    )
    parser.addoption(
        "--every-architecture",
        action="store_true",
        help="compile each kernel by NVRTC for each architecture, not for some in turn",
    )
    parser.addoption(
        "--fuzz", type=int, default=300, metavar="N", help="damaged image files to open (300)"
    )
    parser.addoption(
        "--stories", type=int, default=0, metavar="N",
        help="stories of pages, loader and prediction to tell, others each time",
    )  # fmt: skip


def pytest_generate_tests(metafunc):
    if "backend" not in metafunc.fixturenames:
        return
    from backends import BACKENDS

    parameters = []
    for backend in BACKENDS:
        if backend.folders and metafunc.definition.path.parent.name not in backend.folders:
            continue
        missing = backend.missing()
        if missing and backend.name == "cuda" and metafunc.config.getoption("--require-gpu"):
            raise pytest.UsageError(missing)
        marks = [pytest.mark.skip(reason=missing)] if missing else []
        parameters.append(pytest.param(backend, id=backend.name, marks=marks))
    metafunc.parametrize("backend", parameters, scope="session")


@pytest.fixture
def device(backend):
    """Where images must be for a backend to compute, while it does."""
    with backend.running():
        yield backend.device


def pytest_runtest_setup(item):
    """Count the images of each test alone: those of others may still live."""
    stack.alive.clear()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Fail where a test module cannot be imported, which the search for doctests only skips."""
    report = yield
    is_test = collector.path.name.startswith("test_")
    if is_test and report.skipped and "unable to import module" in str(report.longrepr):
        report.outcome, report.longrepr = "failed", str(report.longrepr)
    return report
