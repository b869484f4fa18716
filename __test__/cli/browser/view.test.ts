// The page of `peerdma view` in a browser: timeline, reasons and keyboard. The page sends no requests.
import type { Locator, Page } from 'playwright-core';
import { browserTest } from './chromium.ts';
import { at, guest, PAGE, pages, taggedFile } from '../../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../../support/recording-target.ts';
import { program } from '../support.ts';
import { movingBar, pageOf } from '../view/support.ts';

/** Returns the boxes of a column whose label contains a text. */
function boxes(page: Page, column: string, text: string): Locator {
  return page.getByRole('listbox', { name: column, exact: true }).locator('.box', { hasText: text });
}

async function topOf(box: Locator): Promise<number> {
  return box.evaluate((element) => element.getBoundingClientRect().top);
}

async function toMoment(page: Page, moment: number): Promise<void> {
  await page.locator('#slider').fill(String(moment));
}

browserTest('the slider moves a BAR in every column, and the text describes the move', async (t, open) => {
  const file = await movingBar(t);
  t.is((await program(['view', file])).status, 0);
  const { page, complaints } = await open(file.replace('.jsonl', '.html'), { reducedMotion: 'reduce' });
  const columns = ['Regions', 'Flat map', 'device A'];
  await toMoment(page, 3);
  for (const column of columns) t.is(await boxes(page, column, 'B bar 2').count(), 0, `${column}: not placed yet`);
  await toMoment(page, 4);
  t.regex((await page.locator('#what').textContent()) ?? '', /"B bar 2" is at 0xe0000000\.\.0xe0010000 now/);
  const before = await Promise.all(columns.map((column) => topOf(boxes(page, column, 'B bar 2'))));
  await toMoment(page, 5);
  t.regex((await page.locator('#what').textContent()) ?? '', /moves from 0xe0000000\.\.\S+ to 0xd0000000\.\./);
  for (const [index, column] of columns.entries()) {
    const box = boxes(page, column, 'B bar 2');
    t.true((await topOf(box)) < (before[index] ?? 0), `${column}: higher up, where the lower addresses are`);
    t.regex((await box.getAttribute('aria-label')) ?? '', /Addresses: 0xd0000000\.\.0xd0010000/);
    t.regex((await box.getAttribute('class')) ?? '', /changed/);
  }
  const ram = boxes(page, 'device A', 'ram0');
  t.notRegex((await ram.getAttribute('class')) ?? '', /changed/);
  await page.locator('#before').click();
  t.is(await topOf(boxes(page, 'device A', 'B bar 2')), before[2] ?? Number.NaN);
  t.deepEqual(complaints, []);
});

browserTest('animates a BAR that moves', async (t, open) => {
  const file = await movingBar(t);
  t.is((await program(['view', file])).status, 0);
  const { page } = await open(file.replace('.jsonl', '.html'));
  await toMoment(page, 4);
  await page.waitForTimeout(700);
  const from = await topOf(boxes(page, 'device A', 'B bar 2'));
  await page.evaluate(() => {
    const box = [...document.querySelectorAll('.target')].find((one) => one.textContent === 'B bar 2');
    box?.addEventListener('transitionrun', (event) => {
      const run = event as TransitionEvent;
      document.body.dataset['ran'] = `${document.body.dataset['ran'] ?? ''} ${run.propertyName}`;
    });
  });
  await toMoment(page, 5);
  await page.waitForFunction(() => document.body.dataset['ran']?.includes('top'));
  await page.waitForTimeout(700);
  t.true((await topOf(boxes(page, 'device A', 'B bar 2'))) < from);
});

browserTest('displays the reason of a failed mapping on hover, on focus and in the list', async (t, open) => {
  const file = await movingBar(t);
  t.is((await program(['view', file])).status, 0);
  const { page } = await open(file.replace('.jsonl', '.html'));
  await toMoment(page, 6);
  const box = boxes(page, 'device A', 'failed');
  t.is(await box.textContent(), 'failed · EINVAL · B bar 2');
  const reason = /the IOMMU cannot map all of these IOVAs: some are reserved/;
  const panel = page.locator('#panel');
  await box.hover();
  const text = (await panel.textContent()) ?? '';
  for (const part of [
    /0xfee00000\.\.0xfee10000/,
    /64 KiB/,
    /BAR of B\+0x0/,
    /EINVAL/,
    /ERR_IOVA_UNREACHABLE/,
    reason,
  ]) {
    t.regex(text, part);
  }
  await page.mouse.move(2, 2);
  t.notRegex((await panel.textContent()) ?? '', reason);
  await box.focus();
  t.regex((await panel.textContent()) ?? '', reason);
  t.regex((await page.locator('#problems').textContent()) ?? '', reason);
  await page.mouse.click(2, 2);
  await page.locator('#problems .link').click();
  t.true(await box.evaluate((element) => element === document.activeElement));
  t.is(await page.locator('#counts .bad').textContent(), '1 not mapped');
});

browserTest('play steps through all moments, and stops at the last one', async (t, open) => {
  const file = await movingBar(t);
  t.is((await program(['view', file])).status, 0);
  const { page } = await open(file.replace('.jsonl', '.html'));
  await toMoment(page, 4);
  await page.locator('#play').click();
  t.regex((await page.locator('#play').textContent()) ?? '', /Pause/);
  await page.waitForFunction(() => document.querySelector<HTMLInputElement>('#slider')?.value === '6');
  t.regex((await page.locator('#play').textContent()) ?? '', /Play/);
});

browserTest('the keyboard reaches every box', async (t, open) => {
  const memory = await guest(t, { ram: [0, 8].map((page) => ({ start: at(page), length: at(4) })) });
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(1, 1), priority: 500 });
  await rom.addMapping({
    range: pages(0, 1),
    backing: { file: taggedFile(t, 'rom file', 1, 1), offset: 0n },
    writable: false,
  });
  await rom.mapToGuest();
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const { page } = await open(await pageOf(t, JSON.stringify(memory.inspect())));
  const focused = (): Promise<string> =>
    page.evaluate(() => {
      const { activeElement: element } = document;
      return `${element?.parentElement?.getAttribute('aria-label')}: ${element?.textContent}`;
    });
  await page.locator('#zoom').focus();
  await page.keyboard.press('Tab');
  if ((await focused()).includes('Address')) await page.keyboard.press('Tab'); // a scrolling map is a tab stop too
  t.is(await focused(), 'Regions: ram0');
  await page.keyboard.press('ArrowDown');
  t.is(await focused(), 'Regions: hidden · ram0');
  t.regex((await page.locator('#panel').textContent()) ?? '', /Hidden by"rom" \(priority 500\)/);
  await page.keyboard.press('ArrowRight');
  t.is(await focused(), 'Flat map: rom');
  t.regex((await page.locator('#panel').textContent()) ?? '', /Devices mayread(?! and)/);
  await page.keyboard.press('ArrowRight');
  t.is(await focused(), 'A: rom');
  await page.keyboard.press('End');
  t.is(await focused(), 'A: ram1');
  await page.keyboard.press('Home');
  t.is(await focused(), 'A: ram0');
  await page.keyboard.press('Shift+Tab');
  t.is(await focused(), 'Flat map: rom', 'where it was before');
});

browserTest('the page explains an address', async (t, open) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const { page } = await open(await pageOf(t, JSON.stringify(memory.inspect())));
  await page.locator('#asked').fill('0x2010');
  t.is(await page.locator('#answer').textContent(), memory.explain(0x2010n).text);
  await page.locator('#asked').fill('-5');
  t.regex((await page.locator('#answer').textContent()) ?? '', /is not an address\. Enter/);
});

browserTest(
  'quarantined boxes have their own look in light and dark mode, and the page sends no requests',
  async (t, open) => {
    const memory = await guest(t, { ram: [0, 2].map((page) => ({ start: at(page), length: PAGE })) });
    const target = new RecordingTarget({ name: 'A' });
    const handle = await memory.dmaMappers.addDmaMapper(target);
    t.teardown(() => memory.dmaMappers.targetClosed(target));
    target.judge = new RefuseAt('unmap', 0).judge;
    await handle.remove().catch(() => {});
    const file = await pageOf(t, JSON.stringify(memory.inspect()));
    const backgrounds: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const) {
      const { page, requests, complaints } = await open(file, { colorScheme });
      t.is(await page.locator('.target.quarantined:visible').count(), 2, 'the box, and that of the legend');
      t.is(await page.locator('#counts .kept').textContent(), '1 quarantined');
      t.is(await page.locator('#timeline:visible').count(), 0, 'a snapshot has no time');
      backgrounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      t.deepEqual(
        requests.filter((url) => !url.startsWith('data:')),
        [`file://${file}`],
      );
      t.deepEqual(complaints, []);
    }
    t.is(new Set(backgrounds).size, 2);
  },
);

browserTest('displays names with HTML as text', async (t, open) => {
  const name = `</script><img src="http://127.0.0.1:9/x" onerror="document.title='owned'"><!--<script>&amp;'"`;
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name, range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  const target = new RecordingTarget({ name });
  await memory.dmaMappers.addDmaMapper(target);
  const { page, requests, complaints } = await open(await pageOf(t, JSON.stringify(memory.inspect()), '<b>&memory'));
  const shown = page.locator('.box.flat .label').first();
  t.is(await shown.textContent(), name);
  t.is(await page.locator('.head h2').nth(2).textContent(), name);
  await shown.hover();
  t.true(((await page.locator('#panel').textContent()) ?? '').includes(name));
  t.is(await page.title(), '<b>&memory · peerdma');
  t.is(await page.locator('img').count(), 0);
  t.is(requests.filter((url) => url.startsWith('http')).length, 0);
  t.deepEqual(complaints, []);
});
