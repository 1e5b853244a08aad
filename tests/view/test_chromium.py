"""neuroglancer in a headless Chromium: it shows what is there, and both ways show the same."""

import asyncio
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time

import neuroglancer
import numpy as np
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from neuroglancer.webdriver import Webdriver
from PIL import Image

from maemem.geometry import Box
from maemem.view import browser
from maemem.view.scene import Layer, Scene, read_scene
from tests import runs
from tests.view.volumes import SIZE, volumes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="no chromium and chromedriver; install Debian's chromium and chromium-driver",
    ),
]

LAYERS = ["raw", "prediction z-1", "prediction y-1", "prediction x-1", "truth", "segmentation"]
# WebGL without a graphics card, and without the network.
ARGUMENTS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@pytest.fixture
def open_page(monkeypatch):
    """Opens the page of a viewer in Chromium."""
    monkeypatch.setenv("SE_OFFLINE", "true")  # The driver is there.
    return lambda viewer: Webdriver(
        viewer, docker=True, print_logs=False, extra_command_line_args=ARGUMENTS
    )


class Address:
    """Stands for a viewer of another process."""

    def __init__(self, url):
        self.url = url

    def get_viewer_url(self):
        return self.url


def layer_names(page) -> set[str]:
    script = "return [...document.querySelectorAll('.neuroglancer-layer-item-label')]"
    return set(page.driver.execute_script(f"{script}.map(label => label.textContent)"))


def colourful(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=-1) > 25


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_command_serves_a_page_that_shows_the_layers(workdir, open_page):
    process = subprocess.Popen(
        [sys.executable, "-m", "maemem.view", str(workdir)],
        cwd=runs.REPOSITORY,
        env=runs.environment(1),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stderr.readline, "")
        url = next(filter(None, (re.search(r"open (http://\S+)", line) for line in lines)))[1]
        with open_page(Address(url)) as page:
            page.driver.set_window_size(1200, 800)
            wait_for(lambda: layer_names(page) == {*LAYERS, "errors"})

            def shown():
                """Grey tissue, coloured objects, and black around them."""
                png = Image.open(io.BytesIO(page.driver.get_screenshot_as_png()))
                panels = np.asarray(png.convert("RGB"))[100:, :600]
                grey = ~colourful(panels) & (panels.mean(-1) > 60)
                return colourful(panels).mean() > 0.1 and grey.mean() > 0.05

            wait_for(shown)
            text = page.driver.find_element("tag name", "body").text
            assert "merge" in text, "the error is listed"
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Files(tornado.web.StaticFileHandler):
    """A folder on the web, for pages of any origin."""

    def set_default_headers(self):
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "*")

    def options(self, *_):
        self.set_status(204)


@pytest.fixture
def serve():
    """Serves a folder; returns its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen(folder):
        application = tornado.web.Application([("/(.*)", Files, {"path": str(folder)})])
        server = tornado.httpserver.HTTPServer(application)
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        return f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    yield lambda folder: asyncio.run_coroutine_threadsafe(listen(folder), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def picture(open_page, state: neuroglancer.ViewerState) -> np.ndarray:
    """What Chromium shows of a state once all of it is loaded, uint8 `[y x 3]`."""
    viewer = neuroglancer.Viewer()
    viewer.set_state(state)
    with open_page(viewer) as page:
        page.driver.set_window_size(1200, 800)
        shot = viewer.screenshot(size=[1200, 800]).screenshot
    return np.asarray(Image.open(io.BytesIO(shot.image)).convert("RGB"))


def test_a_state_shows_the_same_as_what_is_served(config, workdir, open_page, serve):
    scene = read_scene(config, workdir)
    written = browser.addressed_state(scene, browser.web_address(serve(workdir), workdir))
    states = [
        browser.state(scene, browser.served),
        neuroglancer.ViewerState(json.loads(written)),
    ]
    for state in states:
        for layer in state.layers:
            layer.visible = layer.name != "raw"  # The prediction, too.
    served, addressed = (picture(open_page, state) for state in states)
    assert colourful(served).mean() > 0.1
    np.testing.assert_array_equal(addressed, served)


def test_every_format_lies_where_maemem_reads_it(tmp_path, open_page, serve):
    grey = np.random.default_rng(0).integers(100, 255, (6, 10, 14), np.uint8)
    layers = tuple(
        Layer(name, "image", volume.store, SIZE, (0, 0, 20 * i))  # Beside each other.
        for i, (name, volume) in enumerate(volumes(tmp_path, grey))
    )
    box = Box((0, 0, 0), (6, 10, 20 * len(layers)))
    scene = Scene("formats", layers, SIZE, (0.0, 255.0), box)
    written = browser.addressed_state(scene, browser.web_address(serve(tmp_path), tmp_path))
    served = picture(open_page, browser.state(scene, browser.served))
    addressed = picture(open_page, neuroglancer.ViewerState(json.loads(written)))
    assert (served.min(-1) > 90).mean() > 0.03
    # At the edges of voxels it depends on the order of axes where a pixel's middle falls.
    assert (addressed != served).any(-1).mean() < 1e-3
