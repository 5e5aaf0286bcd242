import pytest
from backends import BACKENDS, Host

from gpu_patch._host import arguments

HOSTS = [backend for backend in BACKENDS if isinstance(backend, Host)]


def pytest_generate_tests(metafunc):
    if "compiled" in metafunc.fixturenames:
        marks = {host.name: [pytest.mark.skip(text)] for host in HOSTS if (text := host.missing())}
        metafunc.parametrize(
            "compiled",
            [pytest.param(host, id=host.name, marks=marks.get(host.name, [])) for host in HOSTS],
            indirect=True,
        )


@pytest.fixture(autouse=True)
def small_batches_have_threads(monkeypatch):
    monkeypatch.setattr(arguments, "_WORK_OF_A_THREAD", 1)


@pytest.fixture
def compiled(request):
    """The compiled library of each instruction set in turn, which computes meanwhile."""
    with request.param.running():
        yield request.param.library
