"""The page at / in a real browser."""

import os
import shutil

import pytest
from conftest import start
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

# Of a machine on which everything else runs as well; nothing is asserted of it.
PATIENCE = 120


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1360,1000"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser):
    return lambda name: browser.find_element(By.ID, name)


def fill(field, text):
    field.clear()
    field.send_keys(text)


def wait(browser, condition):
    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(lambda _: condition())


def test_a_prompt_is_sent_many_times_at_once(browser, page):
    server = start("--batch-size", "4")
    browser.get(server.url)
    wait(browser, lambda: page("state").text == "serving")
    assert page("model").text.startswith("demo")
    fill(page("copies"), "48")
    fill(page("tokens"), "400")
    fill(page("seed"), "1")
    # The driver waits for the page, so it is the page that looks: at its places taken while others wait.
    browser.execute_script(
        """window.wasFull = false;
        new MutationObserver(() => {
          const text = (name) => document.getElementById(name).textContent;
          if (text("running") === "4" && text("waiting") !== "0") window.wasFull = true;
        }).observe(document.body, { subtree: true, childList: true, characterData: true });"""
    )
    page("run").click()

    lanes = lambda state="": browser.find_elements(By.CSS_SELECTOR, f".lane{state}")
    wait(browser, lambda: page("run").is_enabled() and page("summary").text != "")
    assert browser.execute_script("return window.wasFull")
    assert len(lanes(".done")) == 48
    assert "48 of 48 sequences finished" in page("summary").text
    texts = [lane.find_element(By.CLASS_NAME, "text").get_attribute("textContent") for lane in lanes()]
    assert all(text.startswith("Once upon a time") and len(text) > 40 for text in texts)

    # What a lane shows is what the API answers to the same request.
    answer = server.client().completions.create(
        model="demo", prompt="Once upon a time", n=48, max_tokens=400, seed=1, temperature=0.8
    )
    assert texts == ["Once upon a time" + choice.text for choice in answer.choices]
    wait(browser, lambda: page("running").text == "0" and page("pages").text == "0")
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(os.path.join(folder, "page.png"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert server.stop() == 0


def test_stop_frees_the_batch(browser, page):
    server = start("--batch-size", "4")
    browser.get(server.url)
    fill(page("tokens"), "900")
    fill(page("prompt"), "One\nTwo\nThree")
    page("lines").click()
    fill(page("copies"), "32")
    browser.execute_script(
        """const timer = setInterval(() => {
          if (document.querySelector(".lane.running")) {
            document.getElementById("stop").click();
            clearInterval(timer);
          }
        }, 10);"""
    )
    page("run").click()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".lane"))
    wait(browser, lambda: page("run").is_enabled() and page("running").text == "0")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".lane")) == 96
    assert page("error").text == ""
    assert server.stop() == 0


def test_the_key_is_asked_for(browser, page):
    server = start(key="sk-page")
    browser.get(server.url)
    wait(browser, lambda: page("key").is_displayed())
    page("key").send_keys("sk-page")
    wait(browser, lambda: page("model").text.startswith("demo"))
    fill(page("copies"), "2")
    fill(page("tokens"), "4")
    page("mode").send_keys("chat")
    page("run").click()
    wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".lane.done")) == 2)
    assert server.stop() == 0


def test_an_error_is_shown(browser, page):
    server = start("--max-queue", "0", "--batch-size", "2")
    browser.get(server.url)
    wait(browser, lambda: page("state").text == "serving")
    fill(page("copies"), "3")
    page("run").click()
    wait(browser, lambda: page("error").text.startswith("n: expected at most 2"))
    assert server.stop() == 0

def test_a_page_of_another_origin_asks(browser):
    """Another server's page: its origin has another port."""
    page, other = start(), start("--cors-origin", "*", key="sk-page")
    browser.get(f"{page.url}/health")
    ask = """const [url, key, done] = [arguments[0], arguments[1], arguments[2]];
        fetch(url + "/v1/chat/completions", {
          method: "POST",
          headers: { "content-type": "application/json", authorization: "Bearer " + key },
          body: JSON.stringify({ messages: [{ role: "user", content: "Hi" }], max_tokens: 4 }),
        }).then(async (answer) => done([answer.status, await answer.text()]), (error) => done([0, String(error)]));"""
    status, answer = browser.execute_async_script(ask, other.url, "sk-page")
    assert status == 200 and "chat.completion" in answer
    assert browser.execute_async_script(ask, other.url, "wrong")[0] == 401
    # Its own server lets no other page in.
    browser.get(f"{other.url}/health")
    assert browser.execute_async_script(ask, page.url, "none")[0] == 0
    assert page.stop() == other.stop() == 0
