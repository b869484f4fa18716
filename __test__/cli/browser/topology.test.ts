// The page of `peerdma topology` in a browser: it displays the reasons and the path of a pair, and sends no requests.
import { join } from 'node:path';
import { describeMachine } from '../../support/sysfs/describe.ts';
import { expandTree, machine } from '../../support/sysfs/expand.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { program } from '../support.ts';
import { browserTest } from './chromium.ts';

browserTest('displays the reasons, the prerequisites and the path of a pair', async (t, open) => {
  const file = join(scratchFolder(t), 'topology.html');
  const root = expandTree(t, describeMachine(machine('gpu-server')));
  t.is((await program(['topology', '--sysfs', root, '--html', file])).status, 0);
  const { page, requests, complaints } = await open(file);
  const why = page.locator('#why');
  const pair = (initiator: string, target: string) => page.locator(`[data-pair="${initiator} ${target}"]`);

  t.regex((await why.textContent()) ?? '', /^0000:18:00\.0 → 0000:19:00\.0/, 'the first pair is selected at the start');
  t.is(await page.locator('svg.aimed').count(), 0, 'and nothing is dimmed');

  const sleeping = pair('0000:9a:00.0', '0000:9b:00.0');
  await sleeping.hover();
  t.regex((await why.textContent()) ?? '', /^0000:9a:00\.0 → 0000:9b:00\.0/);
  t.regex((await why.textContent()) ?? '', /sends translated requests \(ATS is on\)/);
  t.regex((await why.textContent()) ?? '', /Prerequisites.*0000:9b:00\.0 is in a low-power state \(D3hot\)/);
  t.is(await sleeping.getAttribute('aria-pressed'), 'true');
  t.is(await page.locator('[aria-pressed=true]').count(), 1);
  const path = await page
    .locator('svg .on-path')
    .evaluateAll((boxes) => boxes.map((box) => box.getAttribute('data-address')));
  for (const address of ['0000:9a:00.0', '0000:9b:00.0', '0000:99:00.0']) t.true(path.includes(address), address);
  t.false(path.includes('0000:19:00.0'));

  await pair('0000:18:00.0', '0000:9a:00.0').focus();
  t.regex((await why.textContent()) ?? '', /^0000:18:00\.0 → 0000:9a:00\.0/, 'by keyboard as well');
  t.is(await sleeping.getAttribute('aria-pressed'), 'false');
  t.deepEqual(requests, [`file://${file}`]);
  t.deepEqual(complaints, []);
});

browserTest('displays the name of a driver with HTML as text', async (t, open) => {
  const file = join(scratchFolder(t), 'topology.html');
  const name = '<!--<script>'; // unescaped, it would keep the script element from ending
  const device = (slot: string, rest: string) => `  ${slot}.0 1af4:1110 class=050000 bar2=pref64:16M@${rest}`;
  const root = expandTree(
    t,
    describeMachine(
      [
        'cpu amd 25',
        'host 0000:00',
        device('01', '0x100000000 group=1 driver=vfio-pci'),
        device('02', `0x200000000 group=2 driver=${name}`),
      ].join('\n'),
    ),
  );
  t.is((await program(['topology', '--sysfs', root, '--html', file])).status, 0);
  const { page, complaints } = await open(file);
  t.true((await page.locator('#why').textContent())?.includes(name));
  t.true((await page.locator('.facts').textContent())?.includes(name));
  t.deepEqual(complaints, []);
});
