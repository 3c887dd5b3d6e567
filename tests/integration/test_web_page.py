"""The page in a real browser: Chromium without a window, WebGL by software."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from served import MORSE, SLOW, Served
from web_requests import pattern_text

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
BROWSER = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium")
FLAGS = (
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
)
WAIT = 60_000
"""Milliseconds that anything may take on a busy machine."""


@pytest.fixture(scope="module")
def browser():
    # Chromium's sandbox refuses to run as root, as in containers.
    flags = [*FLAGS, *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def context(browser, served):
    made = browser.new_context(
        base_url=served.address, viewport={"width": 1200, "height": 850}, reduced_motion="reduce"
    )
    made.set_default_timeout(WAIT)
    yield made
    made.close()


@pytest.fixture
def page(context):
    """A page on which no script fails and nothing comes from elsewhere."""
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "console",
        lambda message: faults.append(message.text) if _is_fault(message.text) else None,
    )
    opened.on("request", lambda request: _own(request.url, faults))
    yield opened
    opened.close()
    assert faults == []


def _is_fault(text: str) -> bool:
    return "Content Security Policy" in text or "color" in text.lower()


def _own(url: str, faults: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
        faults.append(url)


def visit(page, address="/"):
    page.goto(address)
    page.wait_for_selector("html[data-ready=true]")


def written(page):
    page.wait_for_selector("#progress.over", state="attached")


def numbers(page):
    return [int(card.get_attribute("data-number")) for card in page.query_selector_all(".card")]


def pixels(page, selector):
    return page.locator(selector).screenshot()


def redrawn(page, selector, before):
    """The pixels, as soon as they are others; those of before, if that takes too long."""
    until = time.monotonic() + WAIT / 1000
    while (found := pixels(page, selector)) == before and time.monotonic() < until:
        page.wait_for_timeout(50)
    return found


def test_a_card_names_the_known_crystal_that_it_is_like(page):
    visit(page, "/?formula=NaCl&n=4&seed=1&crystals_from=references")
    page.wait_for_selector(".card .relative")
    written(page)
    assert page.input_value("#crystals_from") == "references"
    assert all("like " in text for text in page.locator(".card .relative").all_inner_texts())
    assert "probability" in page.locator(".card").first.inner_text()
    page.locator(".card .open").first.click()
    page.wait_for_selector("text=made of")


def test_from_a_formula_to_a_cif(page, served, parrot):
    from pymatgen.core import Structure

    import crystallm

    visit(page)
    page.fill("#formula", "TiO2")
    page.wait_for_selector("#reading .cell-formula")
    assert "Z is left open" in page.inner_text("#reading")
    assert page.inner_text("#z option:first-child") == "likely ones"
    page.fill("#formula", "Ti2O4")
    page.wait_for_selector("#reading :text('6 atoms in the cell')")
    assert page.inner_text("#z option:first-child") == "as written"
    page.fill("#formula", "TiO2")
    page.select_option("#z", "2")
    page.wait_for_selector("#reading :text('6 atoms in the cell')")
    page.fill("#n", "5")
    page.click(".more summary")
    page.fill("#seed", "7")
    page.press("#seed", "Enter")
    page.wait_for_selector(".card")  # they come one by one, the places of the others being kept
    written(page)
    assert sorted(numbers(page)) == [0, 1, 2, 3, 4]
    assert page.query_selector_all(".card .scene img")
    assert "5 crystals" in page.inner_text("#status")
    assert "formula=TiO2&z=2&n=5&seed=7" in page.url

    # sort, and filter
    page.select_option("#sort", "written")
    assert numbers(page) == [0, 1, 2, 3, 4]
    page.select_option("#sort", "volume")
    crystals = crystallm.generate("TiO2", z=2, n=5, seed=7, model=parrot)
    volumes = [crystal.structure.volume for crystal in crystals]
    assert [volumes[n] for n in numbers(page)] == sorted(volumes)
    page.check("#only-distinct")
    assert 1 <= len(numbers(page)) <= 5
    page.uncheck("#only-distinct")
    page.select_option("#sort", "written")

    # one that is pointed at is drawn live, in the place of its picture
    page.hover(".card[data-number='1']")
    page.wait_for_selector(".card[data-number='1'] .scene.live canvas")
    page.hover(".card[data-number='2']")
    page.wait_for_selector(".card[data-number='2'] .scene.live canvas")
    assert len(page.query_selector_all(".scene.live")) == 1

    # turn one, by keys and by pointer
    page.click(".card[data-number='0'] .open")
    page.wait_for_selector("#detail[open] .stage canvas")
    before = pixels(page, "#detail .stage")
    page.focus("#detail .stage")
    page.keyboard.press("ArrowRight")
    redrawn(page, "#detail .stage", before)
    page.wait_for_timeout(300)  # in which it comes to rest
    turned = pixels(page, "#detail .stage")
    assert turned != before
    box = page.locator("#detail .stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 + 20, steps=4)
    page.mouse.up()
    assert redrawn(page, "#detail .stage", turned) != turned

    # facts, symmetry, pattern, text
    symbol = crystals[0].space_group
    assert page.get_attribute("#detail-title .group", "aria-label") == symbol
    page.click("[data-tab=Symmetry]")
    assert page.query_selector_all("table.orbits tbody tr")
    page.click("[data-tab=X-ray]")
    page.wait_for_selector("#pattern .peak", state="attached")
    page.click("[data-tab=Text]")
    for kind in ("requested", "forced", "sampled"):
        assert page.query_selector_all(f"#written .{kind}")
    assert page.inner_text("#cif").split("\n", 2)[1] == crystals[0].cif.split("\n", 2)[1]

    # take it home
    page.click("[data-tab=Download]")
    with page.expect_download() as download:
        page.click("[data-form=cif][data-relaxed=false]")
    text = Path(download.value.path()).read_text()
    assert download.value.suggested_filename.endswith(".cif")
    assert text == crystals[0].cif
    found, expected = Structure.from_str(text, fmt="cif"), crystals[0].structure
    assert found.volume == pytest.approx(expected.volume, rel=1e-4)
    assert found.composition == expected.composition
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    with page.expect_download() as download:
        page.click("#zip")
    assert download.value.suggested_filename.endswith(".zip")


def test_a_shared_link_gives_the_same_crystals(page, parrot):
    import crystallm

    visit(page, "/?formula=NaCl&z=4&n=2&seed=11&temperature=1.3")
    written(page)
    assert page.input_value("#formula") == "NaCl"
    assert page.input_value("#z") == "4"
    crystals = crystallm.generate("NaCl", z=4, n=2, seed=11, temperature=1.3, model=parrot)
    shown = {
        int(card.get_attribute("data-number")): card.query_selector(".head .group").get_attribute(
            "aria-label"
        )
        for card in page.query_selector_all(".card")
    }
    assert shown == {i: crystal.space_group for i, crystal in enumerate(crystals)}
    first = page.inner_text(".card[data-number='1'] dl")
    visit(page, "/?formula=NaCl&z=4&n=2&seed=11&temperature=1.3")
    written(page)
    assert page.inner_text(".card[data-number='1'] dl") == first


def test_a_link_without_a_seed_names_the_one_that_is_drawn(page):
    visit(page, "/?formula=NaCl&z=4&n=1")
    written(page)
    assert "seed=" in page.url
    page.go_back()
    assert page.url == "about:blank"


def test_energies_grow_a_curve_and_two_crystals_stand_side_by_side(page, served):
    visit(page, f"/?formula=TiO2&z=2&n=4&seed=2&energy={MORSE}&relax=1")
    written(page)
    page.wait_for_selector("#curve svg .mark", state="attached")
    assert "relax" in page.inner_text(".card .badges")
    job = page.get_attribute("#cards", "data-job")
    for sheet in served.get(f"/api/v1/jobs/{job}").json["crystals"]:
        head = page.query_selector(f".card[data-number='{sheet['number']}'] .head .group")
        assert head.get_attribute("aria-label") == sheet["relaxed"]["space_group"]
    picks = page.query_selector_all(".card .pick input")
    picks[0].check()
    assert page.is_disabled("#compare")
    picks[1].check()
    page.click("#compare")
    page.wait_for_selector("#pair[open] table.versus")
    assert len(page.query_selector_all("#pair .stage canvas")) >= 2
    page.keyboard.press("Escape")
    page.click(".card[data-number='0'] .open")
    page.click("[data-tab=Symmetry]")
    assert page.inner_text("#panel h3") == "As written"


def test_a_search_grows_its_curve_while_it_goes_on(page):
    visit(page)
    page.fill("#formula", "TiO2")
    page.select_option("#z", "2")
    page.check("#search")
    assert page.is_hidden("#n")
    page.fill("#simulations", "1001")
    page.click("#write")
    page.wait_for_selector("#simulations-error:has-text('from 1 to 1000')")
    page.fill("#simulations", "1000")
    page.fill("#seed", "3")
    page.click("#write")
    page.wait_for_selector("#curve svg .mark", state="attached")
    line = page.wait_for_selector("#curve svg .step", state="attached").get_attribute("d")
    sync_api.expect(page.locator("#curve .step")).not_to_have_attribute("d", line, timeout=WAIT)
    page.wait_for_selector("#status:has-text('of 1000 simulations')")
    assert "energy 1" in page.inner_text(".card[data-number='0'] dl")
    assert "search=1&simulations=1000&seed=3" in page.url
    page.click("#cancel")
    page.wait_for_selector("#status:has-text('Cancelled')")
    assert len(numbers(page)) > 1


def test_the_periodic_table_and_the_list_of_groups(page):
    visit(page)
    page.click("#open-table")
    page.click("[data-symbol=Ti]")
    page.click("[data-symbol=O]")
    page.click("[data-symbol=O]")
    assert page.input_value("#formula") == "TiO2"
    page.click("[data-symbol=Po]", force=True)
    assert "Polonium has no token" in page.inner_text("#elements .hint")
    assert page.input_value("#formula") == "TiO2"
    page.wait_for_selector("[data-symbol=O][aria-pressed=true]")
    page.focus("[data-symbol=H]")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("[data-symbol=Li]", "tabindex") == "0"
    page.keyboard.press("Escape")
    assert page.is_hidden("#elements")
    page.select_option("#z", "2")
    page.wait_for_selector("#reading :text('6 atoms in the cell')")
    page.fill("#space_group", "Fm-3m")
    page.wait_for_selector("#groups li[aria-disabled=true] .why")
    assert "do not add up to 2 Ti" in page.inner_text("#groups")
    page.fill("#space_group", "136")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#space_group") == "P4_2/mnm"
    page.select_option("#z", "4")
    page.fill("#space_group", "Pbnm")  # a symbol of another setting, which the list does not have
    page.wait_for_selector("#groups li:has-text('62')")
    assert page.inner_text("#space_group-error") == ""
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.input_value("#space_group") == "Pnma"


WRONG = (
    ("formula", "", "Write a formula"),
    ("formula", "tio2", "did you mean"),
    ("formula", "Xy2", "Xy is not an element"),
    ("formula", "PoO2", "no token"),
    ("formula", "Ti200O400", "at most"),
    ("space_group", "Fm7m", "no space group"),
    ("space_group", "225", "cannot fill Fm-3m"),
    ("n", "1000", "from 1 to 64"),
    ("seed", "x", "whole number"),
)
GOOD = {"formula": "Ti2O4", "space_group": "", "n": "2", "seed": "1"}


def test_each_error_stands_beside_its_field_until_it_is_mended(page):
    visit(page)
    page.click(".more summary")
    for field, value, message in WRONG:
        for name, good in GOOD.items():
            page.fill(f"#{name}", good)
        page.fill(f"#{field}", value)
        page.click("#write")
        page.wait_for_selector(f"#{field}-error:has-text('{message}')")
        page.wait_for_selector(f"#{field}[aria-invalid=true]")
        assert f"{field}-error" in page.get_attribute(f"#{field}", "aria-describedby").split()
        page.fill(f"#{field}", GOOD[field])
        page.wait_for_selector(f"#{field}-error", state="hidden")
    assert page.is_hidden("#run")


def test_a_pattern_is_solved(page, tmp_path):
    visit(page)
    path = tmp_path / "rutile.xy"
    path.write_text(pattern_text(), encoding="utf-8")
    page.fill("#formula", "TiO2")
    page.set_input_files("#pattern", path)
    page.wait_for_selector("#write:text('Solve the pattern')")
    page.click(".more summary")
    page.select_option("#crystals_from", "references")
    page.click("#write")
    page.wait_for_selector("#fit .unexplained")
    written(page)
    assert "fits: Rwp" in page.inner_text("#run-note")
    assert "33.2" in page.inner_text("#fit p.unexplained")
    assert "Rwp" in page.locator(".card").first.inner_text()
    page.locator(".card .open").first.click()
    page.wait_for_selector("#panel svg.fitted")
    assert "expected from noise" in page.inner_text("#panel")
    page.keyboard.press("Escape")
    page.click("#no-pattern")
    page.wait_for_selector("#write:text('Generate crystals')")


def test_a_hexagonal_cell_has_peaks_of_four_indices(page):
    visit(page, "/?formula=ZnS&z=2&space_group=186&n=1&seed=0")
    written(page)
    page.click(".card[data-number='0'] .open")
    page.click("[data-tab=X-ray]")
    page.wait_for_selector("#panel table.orbits")
    assert page.inner_text("#panel table.orbits th") == "h k i l"
    assert len(page.inner_text("#panel table.orbits td").partition(",")[0].split()) == 4


def test_a_job_is_cancelled(page):
    visit(page, f"/?formula=TiO2&z=2&n=60&seed=2&energy={SLOW}&relax=1")
    page.wait_for_selector(".card")
    page.click("#cancel")
    page.wait_for_selector("#status:has-text('Cancelled')")
    assert page.is_hidden("#cancel")
    assert numbers(page)


def test_the_way_to_the_crystals_leaves_the_job_alone(page, served):
    visit(page, f"/?formula=TiO2&z=2&n=60&seed=4&energy={SLOW}&relax=1")
    page.wait_for_selector(".card")
    job = page.get_attribute("#cards", "data-job")
    page.focus(".skip")
    page.keyboard.press("Enter")
    page.wait_for_url("**#results")
    page.wait_for_timeout(500)  # in which a request of its own would have begun
    assert page.get_attribute("#cards", "data-job") == job
    assert served.get(f"/api/v1/jobs/{job}").json["state"] == "running"
    page.click("#cancel")
    page.wait_for_selector("#status:has-text('Cancelled')")


def test_a_link_with_a_model_that_is_not_offered_is_refused(page):
    visit(page, "/?formula=NaCl&n=1&model=nowhere")
    page.wait_for_selector("#model-error:has-text('nowhere')")
    assert page.input_value("#model") == "nowhere"


def test_z_has_one_name_for_the_likely_ones(page):
    visit(page, "/?formula=&z=auto")
    page.fill("#formula", "TiO2")
    page.wait_for_selector("#reading .cell-formula")
    for formula in ("TiO2", "Ti2O4"):
        page.fill("#formula", formula)
        page.wait_for_selector(f"#reading :text('{'left open' if formula == 'TiO2' else '6 atoms'}')")
        names = page.locator("#z option").all_inner_texts()
        assert names.count("likely ones") == 1
        assert not any("auto" in name for name in names)


def test_the_list_of_groups_makes_way_for_the_button(page):
    visit(page)
    page.fill("#formula", "Xy2")
    page.fill("#space_group", "225")
    page.wait_for_selector("#groups:not([hidden])")
    page.press("#space_group", "Enter")
    page.wait_for_selector("#groups", state="hidden")


def test_a_server_that_has_gone_is_told(page):
    visit(page)
    page.context.set_offline(True)
    try:
        page.fill("#formula", "NaCl")
        page.click("#write")
        page.wait_for_selector("#job-error:has-text('does not answer')")
    finally:
        page.context.set_offline(False)


def test_a_proxy_whose_server_starts_anew_ends_nothing(page):
    refused: list[str] = []

    def restarting(route):
        if len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")
        else:
            route.continue_()

    page.route("**/events", restarting)
    visit(page, "/?formula=NaCl&z=4&n=2&seed=12")
    written(page)
    assert len(refused) == 2
    assert "2 crystals" in page.inner_text("#status")
    assert page.is_hidden("#job-error")


def test_where_no_events_come_the_state_is_asked_for(page):
    page.clock.install()
    page.route("**/events", lambda route: route.fulfill(status=429, body="{}"))
    visit(page, "/?formula=NaCl&z=4&n=2&seed=13")
    page.wait_for_selector("#cards[data-job]", state="attached")
    until = time.monotonic() + WAIT / 1000
    while not page.query_selector("#progress.over") and time.monotonic() < until:
        page.clock.fast_forward(30_000)
        page.wait_for_timeout(200)
    assert sorted(numbers(page)) == [0, 1]
    assert "2 crystals" in page.inner_text("#status")


def test_nothing_of_a_formula_becomes_markup(page):
    visit(page, "/?formula=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&n=2")
    page.wait_for_selector("#formula-error:not(:empty)")
    assert page.query_selector("#run img[src=x]") is None


def test_what_the_end_of_the_server_has_interrupted_is_gone_on_with(page, parrot, tmp_path):
    ask = f"/?formula=TiO2&z=2&n=60&seed=5&energy={SLOW}&relax=1"
    server = Served(parrot, tmp_path / "out")
    try:
        visit(page, server.address + ask)
        page.wait_for_selector(".card[data-number]")
        server.kill()
        page.wait_for_selector("#status:has-text('The server does not answer')")
        server = Served(parrot, tmp_path / "out", port=server.port)
        page.wait_for_selector("#status:has-text('The server ended before this was done')")
        before = set(numbers(page))
        assert before
        assert page.is_hidden("#cancel")
        job = page.get_attribute("#cards", "data-job")
        page.click("#resume")
        page.wait_for_selector("#cancel")
        page.wait_for_selector(f":nth-match(.card[data-number], {len(before)})")
        assert page.is_hidden("#resume")
        assert page.get_attribute("#cards", "data-job") == job
        now = numbers(page)
        assert len(set(now)) == len(now)
        assert before <= set(now)
        page.click("#cancel")
        page.wait_for_selector("#status:has-text('Cancelled')")
    finally:
        server.end()


PAPER = {"light": "rgb(246, 247, 245)", "dark": "rgb(14, 20, 19)"}

BACKGROUND = "paper => getComputedStyle(document.body).backgroundColor === paper"


def test_it_fits_its_width_in_both_themes(browser, served):
    made = browser.new_context(base_url=served.address, color_scheme="dark", reduced_motion="reduce")
    made.set_default_timeout(WAIT)
    page = made.new_page()
    visit(page, f"/?formula=NaCl&z=4&n=2&seed=1&energy={MORSE}")
    written(page)
    for width, scheme in ((1200, "dark"), (390, "light"), (1200, "light")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(BACKGROUND, arg=PAPER[scheme])
        assert page.locator("body").bounding_box()["width"] <= width
        for selector in (".request", "#run", ".card"):
            box = page.locator(selector).first.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        label = "() => document.querySelector('#curve svg text').getBoundingClientRect().height > 10"
        page.wait_for_function(label)  # to be read, on a phone too, when it is drawn anew
    for scheme in ("dark", "light"):
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") == scheme
        page.wait_for_function(BACKGROUND, arg=PAPER[scheme])
    made.close()
