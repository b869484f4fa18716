/**
 * `peerdma bind` and `unbind` on a real kernel, without opening a device. Each test restores the drivers of its
 * devices.
 */
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { perform } from '../../ts/host/binding/perform.ts';
import { planBind } from '../../ts/host/binding/plan.ts';
import { type PciFunction, functionAt, readHost } from '../../ts/host.ts';
import type { Outcome } from '../cli/support.ts';
import { throwsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { BOUND, assertRefused, restoreDrivers, run, runSuccessfully, state, writer } from './support/drivers.ts';

testWith({ edu: 1 }, 'the commands of --dry-run have the same effect in a shell', async (t, { edu: [bdf = ''] }) => {
  restoreDrivers(t, bdf);
  for (const [act, after] of [
    ['unbind', [undefined, undefined]],
    ['bind', BOUND],
  ] as const) {
    const commands = await runSuccessfully(t, act, '--dry-run', bdf);
    t.is(spawnSync('sh', ['-e', '-c', commands]).status, 0, commands);
    t.deepEqual(state(bdf), after);
  }
});

testWith({ edu: 2 }, 'a failure restores the devices before it too', async (t, { edu: [first = '', second = ''] }) => {
  restoreDrivers(t, first, second);
  await runSuccessfully(t, 'unbind', first);
  const host = readHost();
  const device = (bdf: string): PciFunction => functionAt(host, bdf);
  const good = planBind([device(first)], undefined, () => true);
  // No driver has this name. The kernel finds none and reports no error.
  const bad = planBind([device(second)], 'no_vfio_pci', () => true);
  const plan = { module: undefined, changes: [...good.changes, ...bad.changes], unchanged: [] };
  const error = throwsCode(t, () => perform(plan, writer), 'ERR_BIND_FAILED');
  t.regex(error.message, new RegExp(`Restored: ${second} \\(vfio-pci\\), ${first} \\(no driver\\)$`));
  t.deepEqual([state(first), state(second)], [[undefined, undefined], BOUND]);
});

testWith({ any: 1 }, 'asks a plain user to run it as root', async (t, { any: [bdf = ''] }) => {
  const main = fileURLToPath(new URL(`../../ts/cli/main${extname(import.meta.url)}`, import.meta.url));
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  const { status, stderr } = spawnSync('setpriv', [...nobody, process.execPath, main, 'unbind', bdf], {
    encoding: 'utf8',
  });
  t.is(status, 1, stderr);
  t.regex(stderr, /ERR_PERMISSION: \/sys\/bus\/pci\/devices\/.*only root can write to it .*sudo/);
  t.deepEqual(state(bdf), BOUND);
});

const machine = 'refuses the root file system and the bridges of the testbed';
if (process.env['PEERDMA_TESTBED_ENTANGLED'] === undefined) {
  test.serial.skip(`${machine} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
} else {
  // A dry run: if it were not refused, the guest would stop.
  test.serial(machine, async (t) => {
    const functions = [...readHost().functions.values()];
    const outcomes: Outcome[] = [];
    for (const { address } of functions.filter(({ driver }) => driver === 'virtio-pci')) {
      outcomes.push(await run(['bind', '--dry-run', address]));
    }
    t.true(
      outcomes.some(({ stderr }) => /ERR_DEVICE_NEEDED: [^]*holds \/.* \(a share of the hypervisor\)/.test(stderr)),
      JSON.stringify(outcomes),
    );
    const bridges = functions.filter(({ bridge }) => bridge !== undefined);
    t.true(bridges.length > 0);
    for (const { address } of bridges) {
      await assertRefused(t, ['bind', '--dry-run', '--force', address], /ERR_UNSUPPORTED: .* is a bridge/);
    }
  });
}
