"""The Prefect UI in headless Chromium: open the nightly deployment, fill its form, run it, wait, keep screenshots."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from night import call, wait_until_completed

pytestmark = [pytest.mark.ui]

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1600",
)


@pytest.fixture
def browser(tmp_path) -> Iterator["object"]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.implicitly_wait(30)
    yield driver
    driver.quit()


def fill(browser, label: str, value: object) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    box = (
        f"//span[starts-with(normalize-space(), '{label} (')]"
        "/ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    )
    if label == "Test Days":  # optional: its field appears once the type is chosen
        browser.find_element(By.XPATH, f"{box}//button[normalize-space()='int']").click()
    field = browser.find_element(By.XPATH, f"{box}//*[self::input or self::textarea]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(value))


def shoot(browser, name: str) -> None:
    time.sleep(3)  # let the page's charts and tables settle
    IMAGES.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(IMAGES / f"{name}.png"))


def test_nightly_when_run_from_the_ui_with_a_filled_form_then_completes(running, browser):
    from selenium.webdriver.common.by import By

    deployment = call(running, "/deployments/name/nightly/nightly")
    browser.get(f"{running.url}/deployments/deployment/{deployment['id']}")
    browser.find_element(By.XPATH, "//*[normalize-space(text())='Schedules']")
    shoot(browser, "prefect-deployment")

    browser.get(f"{running.url}/deployments/deployment/{deployment['id']}/run")
    for label, value in {
        "Synthetic Days": 3,
        "Synthetic Hours": 0.5,
        "Profile": "tests/e2e/tiny.yaml",
        "Test Days": 1,
    }.items():
        fill(browser, label, value)
    shoot(browser, "prefect-form")
    browser.find_element(By.XPATH, "//button[@type='submit']").click()

    run = _newest_run(running, deployment["id"])
    assert run["parameters"]["params"]["synthetic_days"] == 3
    assert run["parameters"]["params"]["profile"] == "tests/e2e/tiny.yaml"
    wait_until_completed(running, run["id"])
    browser.get(f"{running.url}/runs/flow-run/{run['id']}")
    browser.find_element(By.XPATH, "//*[contains(text(), 'Completed')]")
    shoot(browser, "prefect-run")
    tca = next(item for item in call(running, "/artifacts/latest/filter", {}) if item["key"] == "tca")
    browser.get(f"{running.url}/artifacts/artifact/{tca['latest_id']}")
    browser.find_element(By.XPATH, "//*[contains(text(), 'twap_market') or contains(text(), 'TWAP')]")
    shoot(browser, "prefect-tca")


def _newest_run(running, deployment_id: str) -> dict:
    """The flow run that the form started; scheduled ones are not meant."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        body = {"deployments": {"id": {"any_": [deployment_id]}}, "sort": "START_TIME_DESC", "limit": 50}
        runs = [run for run in call(running, "/flow_runs/filter", body) if not run["auto_scheduled"]]
        if runs:
            return runs[0]
        time.sleep(1)
    raise AssertionError("the form started no run")
