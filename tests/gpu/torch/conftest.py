# SPDX-License-Identifier: Apache-2.0
"""Each test runs in a process of its own, so that what one does to the device, or to PyTorch, is not there for the next, and one
that ends the process, or hangs, takes no other along. PyTorch is imported once; the device is first used in those processes."""

import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback

import pytest

import torch  # noqa: F401  (before the processes are made: it takes seconds)

LIMIT = 60  # seconds; pytest.mark.limit(...) says otherwise


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): the test may take so long")


def child(function, arguments, output):
    """Runs the test; what it prints and raises goes there."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
    faulthandler.enable(sys.stderr)
    status = 1
    try:
        function(**arguments)
        status = 0
    except pytest.skip.Exception as skipped:
        print(skipped)
        status = 77
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def wait(process, seconds):
    """The exit status; one that takes too long is killed. -signal: what it was killed by."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "more than %d seconds" % seconds


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    mark = pyfuncitem.get_closest_marker("limit")
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    sys.stdout.flush()
    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if process == 0:
            child(pyfuncitem.obj, arguments, output.fileno())
        status = wait(process, mark.args[0] if mark else LIMIT)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if status == 77:
        pytest.skip(text.strip())
    if status != 0:
        pytest.fail("ended with %s\n%s" % (status, text[-6000:]), pytrace=False)
    print(text, end="")
    return True
