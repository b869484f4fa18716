/**
 * Headless Chromium for tests of pages. If it is not installed, the tests are skipped with the reason.
 */
import type { ExecutionContext, TestFn } from 'ava';
import anyTest from 'ava';
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { type Browser, type Page, chromium } from 'playwright-core';

const EXECUTABLE = process.env['PEERDMA_CHROMIUM'] ?? '/usr/bin/chromium';

const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A page, its requests and its errors. */
export interface OpenPage {
  readonly page: Page;
  /** URLs of all requests. */
  readonly requests: readonly string[];
  /** Errors and blocked requests. */
  readonly complaints: readonly string[];
}

/** Declares a test that opens files in a browser. Skips it if Chromium is not installed. */
export function browserTest(
  title: string,
  act: (t: ExecutionContext, open: (file: string, options?: OpenOptions) => Promise<OpenPage>) => Promise<void>,
): void {
  const test: TestFn = anyTest;
  if (!existsSync(EXECUTABLE)) {
    test.skip(`${title} (needs Chromium: apt-get install chromium, or PEERDMA_CHROMIUM=PATH)`, () => {});
    return;
  }
  test.serial(title, async (t) => {
    t.timeout(180_000);
    const browser = await chromium.launch({ executablePath: EXECUTABLE, args: ARGUMENTS, timeout: 120_000 });
    t.teardown(() => browser.close());
    await act(t, (file, options) => openFile(browser, file, options));
  });
}

/** Options for opening a page. */
export interface OpenOptions {
  readonly colorScheme?: 'light' | 'dark';
  readonly reducedMotion?: 'reduce';
}

async function openFile(browser: Browser, file: string, options: OpenOptions = {}): Promise<OpenPage> {
  const page = await browser.newPage({ viewport: { width: 1360, height: 860 }, ...options });
  const requests: string[] = [];
  const complaints: string[] = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => complaints.push(message.text()));
  await page.goto(pathToFileURL(file).href);
  return { page, requests, complaints };
}
