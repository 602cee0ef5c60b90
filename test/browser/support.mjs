/** A real Chromium, and the test page as a person uses it: by labels, buttons and the words on it. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';

import { chromium } from 'playwright-core';

import { PASSWORD, PATIENCE, atEnd, newUsername } from '../support/hub.mjs';

export * from '../support/hub.mjs';

const EXECUTABLE = process.env.CHROMIUM
  ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
  ?? '/usr/bin/chromium';

/** Starts a browser that asks nobody for anything; close it in `after`. */
export function startBrowser() {
  return chromium.launch({
    executablePath: EXECUTABLE,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  });
}

/** The page in a context of its own, with what the browser's console complained about. */
export class TestPage {
  constructor(page) {
    this.page = page;
    this.complaints = [];
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(message.text());
    });
    page.on('pageerror', (error) => this.complaints.push(String(error)));
  }

  /** Opens `url` in a fresh context, which ends with the test. */
  static async open(t, browser, url, options = {}) {
    const context = await browser.newContext(options);
    atEnd(t, () => context.close());
    context.setDefaultTimeout(PATIENCE);
    const opened = new TestPage(await context.newPage());
    await opened.page.goto(url);
    return opened;
  }

  field(label) {
    return this.page.getByLabel(label, { exact: true });
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true });
  }

  card(number) {
    return this.page.locator('.card', { has: this.page.getByRole('heading', { name: `Client ${number}`, exact: true }) });
  }

  /** Waits until this is on the page, somewhere a person can see it. */
  async sees(text) {
    try {
      await this.page.getByText(text).filter({ visible: true }).first().waitFor();
    } catch (error) {
      throw new Error(`the page does not show ${text}; it shows:\n${await this.page.locator('main').innerText()}`, { cause: error });
    }
  }

  /** Waits until the verdict's line is exactly this. */
  async verdict(line) {
    try {
      await this.page.waitForFunction((wanted) => document.getElementById('verdict-line').textContent === wanted, line);
    } catch (error) {
      throw new Error(`the verdict is not ${line}; the page shows:\n${await this.page.locator('main').innerText()}`, { cause: error });
    }
  }

  /** Waits until the page shows text in this part of a client's card. */
  async part(number, name, pattern) {
    await this.card(number).locator(`[data-part="${name}"]`).filter({ hasText: pattern }).waitFor();
  }

  /** Waits until this many clients are in the state, by its word on the cards. */
  async allCards(state, count) {
    await this.page.waitForFunction(([word, wanted]) => (
      [...document.querySelectorAll('.card .state')].filter((element) => element.textContent === word).length === wanted
    ), [state, count]);
  }

  async fillAccount(username, password = PASSWORD) {
    await this.field('Username').fill(username);
    await this.field('Password').fill(password);
  }

  async register(username = newUsername()) {
    await this.fillAccount(username);
    await this.button('Register').click();
    await this.sees(`Signed in as ${username}.`);
    return username;
  }

  async useToken(token) {
    await this.page.getByText('Paste a token instead').click();
    await this.field('Token').fill(token);
    await this.button('Use token').click();
    await this.button('Copy token').waitFor();
  }

  async connect(count = 3) {
    await this.button('Connect all clients').click();
    await this.sees(`${count} of ${count} connected`);
  }

  async send() {
    await this.button('Send test event').click();
  }

  /** Presses Tab until the element with this role and name has the focus. */
  async tabTo(locator, key = 'Tab') {
    for (let presses = 0; presses < 60; presses += 1) {
      await this.page.keyboard.press(key);
      if (await locator.evaluate((element) => element === document.activeElement)) return;
    }
    assert.fail(`60 times ${key} did not reach ${locator}`);
  }

  async overflow() {
    return this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  }
}
