"""The operator page in headless Chromium over the real gateway and venue.

It shows orders, stops everything when told, shows what is denied then, and says when it is stale.
"""

import asyncio
import time
from datetime import datetime, timedelta

import httpx
import pytest
import yaml
from gateway_process import STRATEGY, Desk, Trading
from test_prefect_ui import browser, shoot  # noqa: F401  # the same browser

pytestmark = [pytest.mark.ui]
WAIT_S = 30.0


class Page:
    """What a person sees and does."""

    def __init__(self, driver, port: int) -> None:
        self.driver = driver
        driver.implicitly_wait(0)
        driver.get(f"http://127.0.0.1:{port}/")

    def of(self, css: str):
        return self.driver.find_element("css selector", css)

    def text(self, css: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0]).innerText", css)

    def shows(self, css: str, words: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while words not in (found := self.text(css)):
            assert time.monotonic() < deadline, f"{css} shows {found!r}, not {words!r}"
            time.sleep(0.05)

    def gone(self, css: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while self.of(css).is_displayed():
            assert time.monotonic() < deadline, f"{css} is still shown: {self.text(css)}"
            time.sleep(0.05)

    def enter(self, token: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self.of("#token-dialog").is_displayed():
            assert time.monotonic() < deadline, "nobody asks for a token"
            time.sleep(0.05)
        self.of("#token").send_keys(token)
        self.of("#token-form button").click()


def admin(trading, who="ann"):
    headers = {"Authorization": f"Bearer {trading.files.admin_tokens[who]}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{trading.ports['admin']}", timeout=30, headers=headers)


@pytest.fixture
def trading(tmp_path):
    limits = {
        "max_open_orders": 8, "max_position_lots": 1_200, "max_gross_value": 9_000_000, "max_day_value": 20_000_000,
        "max_loss": 100_000, "max_drawdown": 60_000,
    }  # fmt: skip
    with Trading(tmp_path / "trading", limits=limits) as found:
        yield found


def test_page_when_a_person_kills_then_it_shows_blocked_flushed_and_what_is_denied(trading, browser):  # noqa: F811
    from selenium.webdriver.support.ui import Select

    page = Page(browser, trading.ports["admin"])
    page.enter("x" * 40)
    page.shows("#token-said", "not known")
    page.enter(trading.files.admin_tokens["ann"])
    page.shows("#standing", "ARMED")
    page.shows("#lines", "FIX SYN: up")
    page.shows("#you", "cn=ann")

    async def work():
        desk = await Desk(trading.files.client_token).open(trading.ports["order"])
        await desk.allowed(*(desk.order("buy", 9_700 + 10 * step, 100 + step) for step in range(6)))
        await desk.allowed(desk.order("buy", None, 60))
        denied = await desk.ask(desk.order("buy", 99_000, 5))
        assert denied.control == "collar"
        await asyncio.to_thread(page.shows, "#orders tbody", "working")
        await asyncio.to_thread(page.shows, "#orders tbody", "9,750")
        await asyncio.to_thread(page.shows, "#positions tbody", STRATEGY)
        await asyncio.to_thread(page.shows, "#denials", "collar")
        await asyncio.to_thread(page.shows, "#limits", "max_open_orders")
        await asyncio.to_thread(shoot, browser, "operator-page")
        page.of("#kill").click()
        assert not page.of("#kill-go").is_enabled()
        page.of("#kill-typed").send_keys("KILL")
        assert not page.of("#kill-go").is_enabled()  # half a confirmation is none
        Select(page.of("#kill-scope")).select_by_value("strategy")
        page.of("#kill-name").send_keys("policy")
        page.of("#kill-typed").clear()
        page.of("#kill-typed").send_keys("KILL policy")
        page.of("#kill-reason").send_keys("a person pressed the button")
        await asyncio.to_thread(page.of("#kill-go").click)
        await asyncio.to_thread(page.shows, "#kill-said", "blocked, flushed")
        denied = await desk.ask(desk.order("buy", 9_700, 10))
        assert denied.control == "kill_switch"
        page.of("#kill-close").click()
        await asyncio.to_thread(page.shows, "#denials", "kill_switch")
        await asyncio.to_thread(page.shows, "#killed", "strategy policy is killed")
        await asyncio.to_thread(page.shows, "#standing", "KILLED")
        await asyncio.to_thread(page.shows, "#n-orders", "(0)")
        await asyncio.to_thread(shoot, browser, "operator-page-killed")
        desk.line.close("done")

    asyncio.run(work())
    sent = trading.received("new")
    assert all(line["lots"] != 10 for line in sent)  # nothing of it reached the venue


def test_page_when_a_day_waits_then_it_is_shown_and_two_people_start_it(trading, browser):  # noqa: F811
    with admin(trading) as ann, admin(trading, "bob") as bob:
        ended = yaml.safe_load((trading.files.folder / "day.yaml").read_text())
        assert ann.post("/v1/day/end", json={}).status_code == 200
        closes = datetime.fromisoformat(ended["closes"])
        ended["instruments"][0]["adv_lots"] = 5_000_000_000
        times = {"opens": closes.isoformat(), "closes": (closes + timedelta(hours=4)).isoformat()}
        wanted = {**ended, **times, "date": (closes + timedelta(days=2)).date().isoformat()}
        yaml_body = {"content": yaml.safe_dump(wanted), "headers": {"Content-Type": "application/yaml"}}
        assert ann.post("/v1/day/propose", **yaml_body).status_code == 200
        page = Page(browser, trading.ports["admin"])
        page.enter(trading.files.admin_tokens["ann"])
        page.shows("#proposals", "The day's book by cn=ann")
        page.shows("#proposals", "adv_lots 5000000000 (was 1000000000)")
        page.of("#proposals button").click()
        page.shows("#ask-text", "adv_lots 5000000000 (was 1000000000)")
        page.of("#ask-dialog button[value=yes]").click()
        page.shows("#told", "another person must approve too")
        page.shows("#proposals", "1 of 2 approved (cn=ann)")
        shoot(browser, "operator-page-day")
        change = ann.get("/v1/proposals").json()["proposals"][0]["change"]
        assert bob.post("/v1/day/approve", json={"change": change}).json()["holds"]
        page.shows("#day", wanted["date"])
        page.shows("#nothing", "Nothing waits.")


def test_page_when_the_gateway_goes_then_it_is_stale_until_it_is_back(trading, browser):  # noqa: F811
    page = Page(browser, port := trading.ports["admin"])
    page.enter(trading.files.admin_tokens["mon"])
    page.shows("#standing", "ARMED")
    page.gone("#stale")
    trading.gateway.end()
    page.shows("#stale", "STALE")
    assert "stale" in page.driver.execute_script("return document.body.className")
    trading.start_gateway(f"--admin-port={port}")
    page.gone("#stale")
    page.shows("#line", "live")
