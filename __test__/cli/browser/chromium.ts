/**
 * Chromium without a window, for tests of pages. Where it is not installed these tests are skipped, and say so.
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

/** A page, what it asked for, and what went wrong in it. */
export interface OpenPage {
  readonly page: Page;
  /** All that was requested. */
  readonly requests: readonly string[];
  /** Errors, and what was blocked. */
  readonly complaints: readonly string[];
}

/** Declares a test with a function that opens files; skipped where there is no Chromium. */
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

/** How a page is to be opened. */
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
