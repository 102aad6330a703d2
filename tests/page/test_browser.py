"""The pages in Chromium, driven by Playwright: what a user sees, points at, types and hears."""

import shutil
from contextlib import contextmanager
from socket import create_server

import numpy as np
import pytest

from satnp.model import Caption
from satnp.page.captions import captioner_entry, photo_entry, view_entry, write_captions
from satnp.page.progress import write_progress
from tests.page.pages import a_model, looking, write_hostile
from tests.page.test_progress import records

pytestmark = pytest.mark.slow
# Where a canvas is clearest, as shares of its width and height, and the opacity there and in the corners
CLEAREST = """canvas => {
    const { width, height } = canvas, { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const opacity = (x, y) => data[4 * (y * width + x) + 3];
    let clear = [];
    let least = 256;
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        if (opacity(x, y) < least) [least, clear] = [opacity(x, y), []];
        if (opacity(x, y) === least) clear.push([(x + .5) / width, (y + .5) / height]);
    }
    const mean = k => clear.reduce((sum, at) => sum + at[k], 0) / clear.length;
    return [mean(0), mean(1), least, opacity(0, 0), opacity(width - 1, height - 1)];
}"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason='no Playwright: pip install -e ".[page]"')
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium: install the package chromium of your system")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, width=1100, **how):
    """The page at `path`; at the end it has neither complained nor asked for anything but its own file."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **{"reduced_motion": "reduce"} | how)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == [] and {url for url in asked if not url.startswith("data:")} <= {path.as_uri()}
    assert page.evaluate("window.hacked") is None
    context.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "hostile page #1.html"
    return path, write_hostile(path)


def shown(view):
    """How visible the map of a view is."""
    return float(view.locator(".map").evaluate("canvas => getComputedStyle(canvas).opacity"))


def test_pointing_at_a_word_shows_its_map_its_bars_and_nothing_afterwards(browser, hostile):
    path, words = hostile
    with opened(browser, path) as page:
        view = page.locator(".view").first
        assert view.locator(".words").first.locator("button").all_inner_texts() == words
        assert shown(view) == 0 and view.locator(".bar .number").all_inner_texts() == ["–", "–"]
        view.locator("button").nth(1).hover()
        assert shown(view) == 1 and view.locator(".bar .number").all_inner_texts() == ["75 %", "0 %"]
        fill = view.locator(".bar .fill").first
        share = fill.evaluate("x => x.getBoundingClientRect().width / x.parentNode.getBoundingClientRect().width")
        assert share == pytest.approx(0.75, abs=0.01)
        page.locator("h1").hover()
        assert shown(view) == 0 and view.locator(".bar .number").all_inner_texts() == ["–", "–"]


@pytest.mark.parametrize("grid", [(3, 5), (7, 7), (9, 3), (1, 1)])
def test_the_map_is_clear_at_the_cell_where_the_word_looked_and_dark_elsewhere(browser, tmp_path, grid):
    model, middle = a_model(grid), (grid[0] // 2, grid[1] // 2)
    views = [view_entry(model, None, [looking(["x"], [middle], grid)])]
    photo = photo_entry("x.jpg", np.zeros((300, 500, 3), np.uint8), views)
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        page.locator(".words button").hover()
        x, y, least, first, last = page.locator(".map").evaluate(CLEAREST)
        assert x == pytest.approx((middle[1] + 0.5) / grid[1], abs=0.01)
        assert y == pytest.approx((middle[0] + 0.5) / grid[0], abs=0.01)
        assert least < 75 and (grid == (1, 1) or min(first, last) > 170)
        sizes = [page.locator(name).bounding_box() for name in (".map", ".stage img")]
        assert sizes[0] == sizes[1]  # it lies exactly on the photo


def test_arrow_keys_move_between_the_words_and_a_screen_reader_hears_them(browser, hostile):
    path, words = hostile
    with opened(browser, path) as page:
        view, live = page.locator(".view").first, page.locator("#live")
        row = view.locator(".words").first
        row.locator("button").first.focus()
        for key, t in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 3), ("ArrowRight", 3), ("Home", 0)):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.textContent") == words[t]
            assert row.locator("[aria-current]").all_inner_texts() == [words[t]] and shown(view) == 1
            assert live.inner_text().startswith(f"{words[t]}: looks most at the ")
        assert live.inner_text() == f"{words[0]}: looks most at the top left of the photo, on the photo 75 %, spread 0 %."
        assert row.locator("[tabindex='0']").count() == 1  # one stop of the tab key
        page.keyboard.press("Escape")
        assert shown(view) == 0
        focus = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert focus == "solid"


def test_a_tap_keeps_the_map_and_a_second_tap_lets_go_of_it(browser, hostile):
    with opened(browser, hostile[0], has_touch=True) as page:
        view, word = page.locator(".view").first, page.locator(".view").first.locator("button").nth(2)
        for kept in (1, 0, 1):
            word.tap()
            assert shown(view) == kept and view.locator("[aria-current]").count() == kept
        view.locator("button").nth(1).tap()
        assert shown(view) == 1 and view.locator("[aria-current]").all_inner_texts() == [hostile[1][1]]


def test_words_that_are_written_from_the_right_stand_in_their_order(browser, tmp_path):
    model, words = a_model(), ["كلب", "بني"]
    views = [view_entry(model, None, [looking(words, [(0, 0), (1, 1)])])]
    photo = photo_entry("x.jpg", np.zeros((300, 500, 3), np.uint8), views)
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        first, second = (page.locator(".words button").nth(k) for k in (0, 1))
        assert first.bounding_box()["x"] > second.bounding_box()["x"]
        first.focus()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.textContent") == words[1]
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.textContent") == words[0]


def test_a_word_shows_the_frames_of_a_clip_that_it_looks_at(browser, tmp_path):
    model = a_model((1, 4), encoder="small_frames")
    views = [view_entry(model, None, [looking(["left"], [(0, 2)], (1, 4))])]
    photo = photo_entry("x.gif", np.zeros((50, 200, 3), np.uint8), views)
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        page.locator(".words button").focus()
        assert "left: looks most at frame 3 of 4" in page.locator("body").text_content()
        opacity = page.evaluate(
            "(() => { const map = document.querySelector('canvas.map'); const { width, height } = map;"
            "const { data } = map.getContext('2d').getImageData(0, height >> 1, width, 1);"
            "return [0, 1, 2, 3].map((k) => data[4 * Math.floor(width * (k + 0.5) / 4) + 3]); })()"
        )
        assert opacity[0] == opacity[1] == opacity[3] > 2 * opacity[2]


@pytest.mark.parametrize("shape", [(2000, 200), (1600, 900), (900, 1600)])
def test_a_tall_photo_fits_on_the_screen(browser, tmp_path, shape):
    model = a_model()
    views = [view_entry(model, None, [looking(["x"], [(0, 0)])])]
    photo = photo_entry("x.jpg", np.zeros((*shape, 3), np.uint8), views)
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        box = page.locator(".stage img").bounding_box()
        assert box["height"] <= 0.8 * 800 + 1
        assert box["width"] / box["height"] == pytest.approx(shape[1] / shape[0], rel=0.02)
        assert page.locator(".map").bounding_box() == box


def test_captioners_with_other_grids_and_a_caption_without_words_share_a_page(browser, tmp_path):
    coarse, fine = a_model((2, 2)), a_model((14, 14), "show_attend_tell", gates=0.5)
    empty = Caption([], -0.5, np.full((1, 14, 14), 1 / 196))
    said = [looking(["a"], [(1, 0)], (2, 2))], [empty, looking(["b"], [(0, 13)], (14, 14))]
    views = [view_entry(model, None, captions) for model, captions in zip((coarse, fine), said, strict=True)]
    photo = photo_entry("x.jpg", np.zeros((300, 500, 3), np.uint8), views)
    write_captions(tmp_path / "p.html", [captioner_entry(x.captioner, x) for x in (coarse, fine)], [photo], 2)
    with opened(browser, tmp_path / "p.html") as page:
        left, right = (page.locator(".view").nth(k) for k in (0, 1))
        left.locator(".words button").hover()
        assert left.locator(".map").evaluate(CLEAREST)[:2] == pytest.approx([0.1, 0.9], abs=0.16)
        assert "(no words)" in right.inner_text() and "no map" not in right.inner_text()
        right.locator("summary").click()
        right.locator(".words button").hover()
        x, y, *_ = right.locator(".map").evaluate(CLEAREST)
        assert x > 0.95 and y < 0.05 and right.locator(".bar .number").first.inner_text() == "50 %"
        page.get_by_role("button", name="All words").click()
        page.locator("figure canvas[width='320']").first.wait_for()
        assert left.locator("figure").count() == 1 and right.locator("figure").count() == 0


def test_a_pointer_that_leaves_goes_back_to_the_word_that_was_chosen(browser, hostile):
    with opened(browser, hostile[0]) as page:
        view = page.locator(".view").first
        view.locator("button").nth(0).click()
        view.locator("button").nth(3).hover()
        assert view.locator(".shown").all_inner_texts() == ["runs"]
        page.locator("h1").hover()
        assert view.locator(".shown").all_inner_texts() == [hostile[1][0]] and shown(view) == 1


def test_every_photo_has_words_for_those_who_do_not_see_it(browser, hostile):
    path, words = hostile
    with opened(browser, path) as page:
        alts = page.locator(".stage img").evaluate_all("images => images.map(x => x.alt)")
        assert all(" ".join(words) in alt for alt in alts[::2])
        assert alts[3] == "scene.png: a dog. True objects: big red circle, small blue square"
        assert page.locator(".view").first.get_attribute("aria-label") == "soft/<i>best.npz"


def test_captioners_stand_beside_each_other_and_one_without_attention_says_so(browser, hostile):
    with opened(browser, hostile[0]) as page:
        views = page.locator("article").first.locator(".view")
        left, right = (views.nth(k).bounding_box() for k in (0, 1))
        assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
        assert views.nth(1).locator("button").count() == 0 and "have no map" in views.nth(1).inner_text()
        assert "a dog" in views.nth(1).inner_text() and "log p −1.00" in views.nth(1).inner_text()


def test_the_beams_other_captions_are_there_with_their_log_probabilities(browser, hostile):
    with opened(browser, hostile[0]) as page:
        view = page.locator(".view").first
        assert not view.get_by_text("log p −4.13").is_visible()
        view.get_by_text("Another caption of the beam").click()
        assert view.get_by_text("log p −4.13").is_visible()
        view.get_by_role("button", name="cat").hover()
        assert shown(view) == 1


def test_all_words_beside_each_other(browser, hostile):
    path, words = hostile
    with opened(browser, path) as page:
        switch = page.get_by_role("button", name="All words beside each other")
        assert page.locator("figure").count() == 0
        switch.click()
        panels = page.locator(".view").first.locator("figure")
        assert panels.locator(".word").all_inner_texts() == words and switch.get_attribute("aria-pressed") == "true"
        page.locator("figure canvas[width='320']").first.wait_for()
        bright = panels.first.locator("canvas").evaluate("""canvas => {
            const { width, height } = canvas, { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const at = (x, y) => data[4 * (Math.round(y * height) * width + Math.round(x * width))];
            return [at(.1, .17), at(.9, .83)];
        }""")
        assert bright[0] > 170 and bright[1] < 100  # of a grey of 200
        switch.click()
        assert not panels.first.is_visible()


def test_the_true_boxes_of_a_scene_lie_on_its_objects_and_can_be_hidden(browser, hostile):
    with opened(browser, hostile[0]) as page:
        view = page.locator("article").nth(1).locator(".view").first
        image, box = (view.locator(name).first.bounding_box() for name in ("img", "rect.over"))
        for side, start, size in (("x", 4, "width"), ("y", 2, "height")):
            assert box[side] - image[side] == pytest.approx(start / 64 * image[size], abs=1.5)
            assert box[size] == pytest.approx(18 / 64 * image[size], abs=3)  # with its line
        assert view.locator(".tag").all_inner_texts() == ["big red circle", "small blue square"]
        page.get_by_role("button", name="True boxes").click()
        assert not view.locator(".tag").first.is_visible()


def test_regions_have_boxes_in_place_of_a_map(browser, tmp_path):
    model = a_model((1, 3), "top_down", encoder="regions")
    boxes = np.array([[0, 0, 100, 100], [300, 100, 380, 200], [0, 0, 0, 0]], np.float32)
    view = view_entry(model, np.ones((1, 3, 2)), [Caption(["dog"], -1.0, np.array([[[0.2, 0.8, 0.0]]]))], boxes)
    photo = photo_entry("x.jpg", np.zeros((200, 400, 3), np.uint8), [view])
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        page.locator(".words button").hover()
        image, frame = (page.locator(name).bounding_box() for name in (".stage img", ".most rect.over"))
        assert frame["x"] - image["x"] == pytest.approx(0.75 * image["width"], abs=2)
        assert frame["width"] == pytest.approx(0.2 * image["width"], abs=3)
        x, y, least, first, _ = page.locator(".map").evaluate(CLEAREST)
        assert (x, y) == (pytest.approx(0.85, abs=0.01), pytest.approx(0.75, abs=0.01)) and least < 75 < 110 < first < 180


@pytest.mark.parametrize(
    ("weights", "frames", "said", "low", "high"),
    [
        ((0.002, 0.001), 0, "x: looks most at the sentinel, on the photo 0 %", 180, 190),
        ((0.3, 0.1), 0, "x: looks most at the sentinel, on the photo 40 %", 110, 150),
        ((0.05, 0.9), 1, "x: looks most at the bottom right of the photo, on the photo 95 %", 60, 75),
    ],
)
def test_words_of_the_sentinel_leave_the_regions_dark(browser, tmp_path, weights, frames, said, low, high):
    model = a_model((1, 2), "neural_baby_talk", sentinel=True, encoder="regions")
    boxes = np.array([[0, 0, 100, 100], [300, 100, 380, 200]], np.float32)
    view = view_entry(model, np.ones((1, 2, 2)), [Caption(["x"], -1.0, np.array([[weights]]))], boxes)
    photo = photo_entry("x.jpg", np.zeros((200, 400, 3), np.uint8), [view])
    write_captions(tmp_path / "p.html", [captioner_entry("x", model)], [photo], 1)
    with opened(browser, tmp_path / "p.html") as page:
        page.locator(".words button").focus()
        assert page.locator(".most rect.over").count() == frames
        assert page.locator("#live").inner_text().startswith(f"{said}, spread")
        assert low < page.locator(".map").evaluate(CLEAREST)[2] < high
        assert "own scale" not in page.locator(".help").text_content()


def test_the_boxes_that_a_captioner_found_have_its_words(browser, tmp_path):
    model = a_model(captioner="babytalk")
    found = [("big <b>dog", np.array([40.0, 20, 200, 120])), ("ball", np.array([300.0, 150, 390, 199]))]
    photo = np.zeros((200, 400, 3), np.uint8)
    views = [view_entry(model, None, [Caption(["a", "dog"], None, None)], objects=found), view_entry(model, None, [])]
    views[1]["captions"] = views[0]["captions"]
    captioners = [captioner_entry(name, model) for name in "xy"]
    write_captions(tmp_path / "p.html", captioners, [photo_entry("x.jpg", photo, views)], 1)
    with opened(browser, tmp_path / "p.html") as page:
        view, other = (page.locator(".view").nth(k) for k in (0, 1))
        image, box = (view.locator(name).first.bounding_box() for name in ("img", ".found rect.over"))
        for side, start, size in (("x", 40 / 400, "width"), ("y", 20 / 200, "height")):
            assert box[side] - image[side] == pytest.approx(start * image[size], abs=1.5)
        assert view.locator(".found .tag").all_inner_texts() == ["big <b>dog", "ball"]
        assert other.locator(".found").count() == 0
        assert view.locator("img").get_attribute("alt").endswith("Found objects: big <b>dog, ball")
        assert "Yellow boxes" in page.locator(".help").text_content() and page.get_by_role("button").count() == 0


@pytest.mark.parametrize("width", [320, 500, 900])
def test_no_screen_is_too_narrow(browser, hostile, width):
    with opened(browser, hostile[0], width) as page:
        page.locator(".words button").first.click()
        page.get_by_role("button", name="All words").click()
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("figure canvas[width='320']").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme, low, high", [("light", 600, 765), ("dark", 0, 120)])
def test_dark_and_light_follow_the_system(browser, hostile, scheme, low, high):
    with opened(browser, hostile[0], color_scheme=scheme) as page:
        ground, ink = page.evaluate("""["backgroundColor", "color"].map(name => getComputedStyle(document.body)[name]
            .match(/[0-9.]+/g).slice(0, 3).reduce((sum, x) => sum + Number(x), 0))""")
        assert low <= ground <= high and abs(ground - ink) > 400


@pytest.mark.parametrize("motion, moves", [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_those_who_asked_for_that(browser, hostile, motion, moves):
    with opened(browser, hostile[0], reduced_motion=motion) as page:
        seconds = page.locator(".map").first.evaluate("x => getComputedStyle(x).transitionDuration")
        assert (seconds != "0s") == moves


def test_the_policy_refuses_what_a_page_does_not_need(browser, tmp_path):
    """Were text ever taken for HTML, it could neither run nor ask for anything."""
    write_hostile(tmp_path / "p.html")
    context = browser.new_context()
    page, server = context.new_page(), create_server(("127.0.0.1", 0))
    page.goto((tmp_path / "p.html").as_uri())
    refused = page.evaluate("""async (address) => {
        const found = [];
        document.addEventListener("securitypolicyviolation", event => found.push(event.effectiveDirective));
        const bad = `<img src='${address}'><b onclick='1' style='color: red'>x</b>`;
        document.body.insertAdjacentHTML("beforeend", bad);
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        await fetch(address).catch(() => 0);
        await new Promise(done => setTimeout(done, 100));
        return found.sort();
    }""", f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert refused == ["connect-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"]
    assert page.evaluate("window.hacked") is None
    server.setblocking(False)
    with server, pytest.raises(BlockingIOError):  # nobody called
        server.accept()
    context.close()


@pytest.fixture
def progress(tmp_path):
    def write(state="finished"):
        write_progress(tmp_path / "progress.html", records(), "runs/soft", 40, 80, state, best=20)
        return tmp_path / "progress.html"

    return write


def test_the_curves_of_a_training_tell_their_values(browser, progress):
    with opened(browser, progress()) as page:
        assert "Finished. Step 40 of 80" in page.locator(".state").inner_text()
        loss = page.locator(".chart").first
        assert loss.locator(".number").all_inner_texts() == ["4.600", "4.000"]
        box = loss.locator("svg").bounding_box()
        middle = 46 + (box["width"] - 58) / 2  # epoch 2, by the edges of the chart
        loss.locator(".plot").hover(position={"x": middle, "y": 50})
        assert loss.locator(".number").all_inner_texts() == ["4.800", "4.000"]
        assert loss.locator(".at").inner_text() == "epoch 2.00"
        spots = loss.locator(".spot").all()
        assert [spot.bounding_box()["x"] + 5.5 - box["x"] for spot in spots] == 2 * [pytest.approx(middle, abs=1.5)]
        dots = [dot.bounding_box()["y"] for dot in page.locator(".chart").nth(1).locator(".dot").all()]
        assert len(dots) == 4 and np.diff(dots) == pytest.approx(3 * [np.diff(dots)[0]], abs=0.1) and dots[0] > dots[1]
        page.locator("h1").hover()
        loss.locator(".plot").focus()
        slider = page.get_by_role("slider", name="Loss, nats a word, by epoch")
        for key, epoch in (("Left", 3), ("Left", 2), ("Right", 3), ("Up", 4), ("Right", 4)):
            page.keyboard.press(f"Arrow{key}")
            assert loss.locator(".at").inner_text() == f"epoch {epoch}.00"
            said = f"epoch {epoch}.00: training {5 - epoch / 10:.3f}, validation 4.000"
            assert slider.get_attribute("aria-valuetext") == said
            assert slider.get_attribute("aria-valuenow") == str(epoch - 1)
        assert page.locator("tr.best td").nth(1).inner_text() == "20"


@pytest.mark.parametrize("width", [320, 700])
def test_curves_fit_a_narrow_screen_in_the_dark(browser, progress, width):
    with opened(browser, progress(), width, color_scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("svg").first.bounding_box()["width"] <= width


def test_the_page_of_a_running_training_reloads_itself_until_it_ends(browser, progress, monkeypatch):
    monkeypatch.setattr("satnp.page.progress.RELOAD", 1)
    with opened(browser, progress("running")) as page:
        assert "Running. Step 40 of 80" in page.locator(".state").inner_text()
        progress("finished")
        page.locator(".plot").first.focus()  # somebody reads the values
        page.wait_for_timeout(2500)
        assert "Running" in page.locator(".state").inner_text()
        page.locator(".plot").first.blur()
        page.locator(".state", has_text="Finished").wait_for(timeout=10_000)
        loads = []
        page.on("load", lambda page: loads.append(page))
        page.wait_for_timeout(2500)
        assert loads == []
