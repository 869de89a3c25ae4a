"""``report.html`` in a real browser: figures, filters, keyboard, themes, a phone, no network."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fate_gym.lab.jobs.explained import read_explained
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.report.compute import compute_report
from fate_gym.lab.report.figures.draw import FIGURES
from fate_gym.lab.report.page.data import page_data
from fate_gym.lab.report.page.render import embeddable, render_page
from fate_gym.lab.report.page.schedules import schedules
from tests.lab.conftest import Run, edit_result

CHROMIUM = Path("/usr/bin/chromium")
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (colour) => { const [r, g, b] = rgb(colour).map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (colour !== 'rgba(0, 0, 0, 0)') return colour; } return 'white'; };
  const faults = [];
  for (const node of document.querySelectorAll(
      'h1,h2,p,td,th,button,label,figcaption,li,text,code')) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const a = light(node.tagName === 'text' ? style.fill : style.color), b = light(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faults.push(`${node.tagName} ${node.textContent.slice(0, 30)} ${ratio}`);
  }
  return faults; }"""


@pytest.fixture(scope="module")
def root(sweep: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the report of a sweep of two suites, the second of which is a copy."""
    root = Path(shutil.copytree(sweep.root, tmp_path_factory.mktemp("page") / "grid"))
    shutil.copytree(root / "smoke", root / "other")
    for path in (root / "other").glob("*/*/result.json"):
        edit_result(path, suite="other", suite_hash="ffffffff")
    (root / "report.html").write_text(render_page(compute_report(root)))
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        assert not os.environ.get("CI"), "CI installs chromium: make browser"
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    flags = "--no-sandbox --disable-gpu --disable-background-networking --no-first-run"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags.split())
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, root: Path) -> Iterator[Any]:
    """Open the page; fail at the end if anything was on the console or the network."""
    context = browser.new_context(
        viewport={"width": 360 if request.param == "phone" else 1280, "height": 900},
        color_scheme="dark" if request.param == "dark" else "light",
    )
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{root}/report.html")
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.slow
def test_figures_render_with_words_for_those_who_cannot_see_them(page: Any) -> None:
    for name in FIGURES:
        figure = page.locator(f"#fig-{name}")
        # No experiment asks for a map or an axis, and there are no sessions.
        if name in ("map", "axis", "session"):
            assert figure.is_hidden()
            continue
        picture = figure.locator("svg").first
        size = picture.bounding_box()
        assert size["width"] > 250 and size["height"] > 60, name
        assert len(picture.get_attribute("aria-label")) > 40
        assert picture.locator("text").count() > 3
        assert "NaN" not in picture.inner_html() and "undefined" not in picture.inner_html()
    page.locator("#fig-gantt [data-do=next]").click()
    assert page.locator("#fig-gantt .whys table").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_filters_change_what_is_shown(page: Any, root: Path) -> None:
    rows = page.locator("#summary tbody tr:not(.runs)")
    counts = {text.split("\t")[0].strip(): text.split("\t")[1] for text in rows.all_inner_texts()}
    assert counts == {"heft": "8", "eft": "8", "round_robin": "8"}
    page.select_option("#suite", "other")
    assert rows.first.locator("td").first.inner_text() == "4"
    page.select_option("#family", label="srasearch")
    assert rows.first.locator("td").first.inner_text() == "2"
    report = compute_report(root).sweep.rows
    chosen = report[(report["suite"] == "other") & (report["family"] == "srasearch")]
    expected = chosen[chosen["policy"] == "heft"]["latency_ratio"].mean()
    shown = page.locator("#row-0 .ci > span").inner_text()
    assert float(re.match(r"[\d.]+", shown)[0]) == pytest.approx(expected, abs=6e-4)  # type: ignore[index]
    assert page.locator("#workflows tbody tr").count() == 2

    page.select_option("#family", label="all families")
    page.fill("#find", "epigenomics")
    assert page.locator("#workflows tbody tr").count() == 2
    lines = page.locator("#fig-ecdf path").count()
    page.click("#picker > summary")
    page.click(".chip:has-text('eft') >> nth=0")
    assert page.locator("#fig-ecdf path").count() == lines - 1
    page.keyboard.press("Escape")
    assert not page.locator("#chips").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_it_can_be_used_without_a_mouse(page: Any, root: Path) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#summary thead button").first.focus()
    page.keyboard.press("Enter")
    firsts = page.locator("#summary tbody th .expand").all_inner_texts()
    assert firsts == sorted(firsts)
    page.locator("#summary tbody .expand").first.focus()
    page.keyboard.press("Enter")
    links = page.locator("tr.runs:not([hidden]) a[href$='result.json']")
    assert links.count() == 4  # two suites, two seeds
    for link in links.all():
        assert (root / link.get_attribute("href")).exists()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_schedules_can_be_chosen_and_pointed_at(page: Any, root: Path) -> None:
    gantt = page.locator("#fig-gantt")
    offered = gantt.locator("[data-v=problem] option").all_inner_texts()
    traced = {problem for suite in ("smoke", "other") for problem in _traced(root / suite)}
    assert {name.split(": ")[1] for name in offered} == traced
    assert len(offered) == 2 * len(traced)
    gantt.locator("[data-v=b]").select_option("round_robin")
    label = gantt.locator("svg").first.get_attribute("aria-label")
    assert "heft ends at" in label and "round_robin ends at" in label
    tooltip = page.locator("#tip")
    gantt.locator("g.shard").first.hover()
    assert "load" in tooltip.inner_text()
    page.keyboard.press("Escape")
    assert tooltip.is_hidden()
    gantt.locator("g.shard").first.hover(position={"x": 3, "y": 4})
    assert tooltip.is_visible()
    page.mouse.wheel(0, 40)
    assert tooltip.is_hidden()


def _traced(suite: Path) -> set[str]:
    return {name for job in suite.glob("*/*") for name in read_explained(job)}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_viewer_zooms_and_pans_both_schedules_by_mouse_and_keys(page: Any) -> None:
    gantt = page.locator("#fig-gantt")
    bars, ticks = gantt.locator("[data-v=bars]"), gantt.locator("[data-v=ticks] text")
    whole = ticks.all_text_contents()
    gantt.locator("[data-do=in]").click()
    assert "scale(1.6,1)" in bars.get_attribute("transform")
    near = ticks.all_text_contents()
    assert near != whole and "enlarged" in near[-1]
    gantt.locator("[data-svg=time]").focus()
    page.keyboard.press("ArrowRight")
    assert ticks.all_text_contents() != near
    page.keyboard.press("0")
    assert ticks.all_text_contents() == whole
    box = gantt.locator("[data-svg=time]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    assert bars.get_attribute("transform") != "translate(0,0) scale(1,1)"
    before = bars.get_attribute("transform")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 80, box["y"] + 60)
    page.mouse.up()
    assert bars.get_attribute("transform") != before


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_viewer_says_why_a_stage_is_where_it_is(page: Any) -> None:
    gantt = page.locator("#fig-gantt")
    assert gantt.locator("circle.node.critical").count() > 1
    assert gantt.locator("rect.room").count() > 4  # memory of the devices
    gantt.locator("[data-svg=time]").focus()
    page.keyboard.press("n")
    why = gantt.locator("[data-v=why]")
    assert "Why here:" in why.locator("h3").inner_text()
    heads = why.locator("table").first.locator("thead th").all_inner_texts()
    assert heads[:2] == ["device", "wait"] and heads[-1] == "policy's value"
    rows = why.locator("table").first.locator("tbody tr").all_inner_texts()
    cells = [row.split("\t") for row in rows]
    (chosen,) = [cell for cell in cells if cell[0].startswith("✓")]
    assert chosen[7] == "chosen"
    # HEFT takes the device with the smallest of its values.
    assert float(chosen[8]) == min(float(cell[8]) for cell in cells)
    for cell in cells:
        wait, load, transfer, prefill, decode, total = map(float, cell[1:7])
        assert total == pytest.approx(wait + max(load, transfer) + prefill + decode, rel=0.02)
    assert gantt.locator("g.shard.chosen").count() >= 2  # in both schedules
    assert gantt.locator("circle.node.chosen").count() == 1
    page.keyboard.press("Escape")
    assert gantt.locator(".chosen").count() == 0
    gantt.locator("[data-v=rows]").select_option("queries")
    assert gantt.locator("rect.room").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", ["light"], indirect=True)
def test_the_family_filter_acts_on_schedules_and_panels(page: Any) -> None:
    options = page.locator("#fig-gantt [data-v=problem] option")
    everything, bars = options.count(), page.locator("#fig-mechanism svg").inner_html()
    page.select_option("#family", label="srasearch")
    assert 0 < options.count() < everything
    assert all("srasearch" in name for name in options.all_inner_texts())
    assert page.locator("#fig-mechanism svg").inner_html() != bars
    assert "Of all families" in page.locator("#fig-decision_time .note").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_tables_that_are_cut_say_so_and_expanded_rows_fit(page: Any) -> None:
    table = page.locator(".scroll:has(#summary)")
    assert "more" in table.get_attribute("class").split()
    page.locator("#summary tbody .expand").first.click()
    runs = page.locator("tr.runs:not([hidden]) .runlist").bounding_box()
    assert 200 < runs["width"] <= 360
    table.evaluate("node => node.scrollTo(node.scrollWidth, 0)")
    page.wait_for_function("!document.querySelector('.scroll:has(#summary)').matches('.more')")


def test_numbers_of_the_page_are_those_of_the_summary(root: Path) -> None:
    report = compute_report(root)
    data = page_data(report)
    for shown, row in zip(data["summaries"][""], report.summary, strict=True):
        columns = ("latency_ratio", "latency_ratio_lo", "latency_ratio_hi")
        assert tuple(shown[column] for column in columns) == row.latency_ratio
    assert len(data["runs"]) == len(find_jobs(root)) == 12
    assert len(data["values"]["latency_ratio"]) == len(report.sweep.rows) == 24
    assert max(data["values"]["key"]) + 1 == len(data["keys"]["suite"]) == 8
    schedule = schedules(report)[0]["schedules"][0]
    assert max(schedule["end"]) == pytest.approx(schedule["makespan"])


def test_text_of_a_user_cannot_leave_its_place(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    (copy / "sweep.yaml").write_text("report: {title: '</script><b>x'}\ncommands: [['<i>']]\n")
    text = render_page(compute_report(copy))
    assert "<b>x" not in text and "<i>" not in text
    assert text.count("</script>") == 4


ATTACK = "<img src=x onerror='window.ran=1'>"
SUITE = "javascript:window.ran=2,'#?\"%41&lt;"


@pytest.fixture
def hostile(root: Path, tmp_path: Path) -> Path:
    """Make the report of malicious run directories."""
    copy = Path(shutil.copytree(root, tmp_path / "hostile"))
    (copy / "other").rename(copy / SUITE)
    for path in (copy / SUITE).glob("*/*/result.json"):
        edit_result(path, suite=SUITE)
    for path in copy.glob("*/*/*/workflows.parquet"):
        rows = pd.read_parquet(path)
        rows["stages"] = ATTACK
        rows["family"] = ATTACK
        rows["workflow"] = [f"<!--<script>\u2028{name}" for name in rows["workflow"]]
        rows.to_parquet(path)
        edit_result(path.with_name("result.json"))
    (copy / "report.html").write_text(render_page(compute_report(copy)))
    return copy


@pytest.mark.slow
def test_names_and_columns_of_strangers_are_shown_and_do_nothing(
    browser: Any, hostile: Path
) -> None:
    context = browser.new_context()
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{hostile}/report.html")
    assert page.locator("#summary tbody tr:not(.runs)").count() == 3
    assert ATTACK in page.locator("#workflows tbody").inner_text()
    assert "<!--<script>" in page.locator("#workflows tbody").inner_text()
    links = page.locator("tr.runs a")
    assert links.count() == 24
    for link in links.all():
        assert link.evaluate("node => node.protocol") == "file:"
        place = link.evaluate("node => decodeURIComponent(node.pathname)")
        assert Path(place).is_file()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.ran") is None
    assert said == []
    context.close()


def test_embedded_json_keeps_its_values_and_has_no_tags() -> None:
    values = ["<!--<script>", "</script>", "a & b", "\u2028\u2029", "<b>\\u003c"]
    for ensure_ascii in (True, False):
        text = embeddable(json.dumps(values, ensure_ascii=ensure_ascii))
        assert json.loads(text) == values
        assert not set(text) & set("<>&\u2028\u2029")
