/**
 * The NVMe example without its device: it reports that, and its requirements. With a device:
 * __test__/vfio/nvme.test.ts.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNvme } from '../examples/devices/nvme/find.ts';

/** A fake /sys with these devices. */
function sysfs(
  t: ExecutionContext,
  devices: Record<string, { readonly class: string; readonly driver?: string }>,
): string {
  const root = mkdtempSync(join(tmpdir(), 'peerdma-sysfs-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  for (const [bdf, device] of Object.entries(devices)) {
    const path = join(root, 'bus/pci/devices', bdf);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'class'), `${device.class}\n`);
    if (device.driver !== undefined) symlinkSync(`../../drivers/${device.driver}`, join(path, 'driver'));
  }
  return root;
}

const NETWORK = { class: '0x020000', driver: 'vfio-pci' };

test('finds the first NVMe controller that is bound to vfio-pci', (t) => {
  const root = sysfs(t, {
    '0000:01:00.0': NETWORK,
    '0000:02:00.0': { class: '0x010802', driver: 'nvme' },
    '0000:04:00.0': { class: '0x010802', driver: 'vfio-pci' },
    '0000:03:00.0': { class: '0x010802', driver: 'vfio-pci' },
  });
  t.is(findNvme(root), '0000:03:00.0');
});

test('without a bound controller the error lists the controllers and the remedy', (t) => {
  const devices = { '0000:01:00.0': NETWORK, '0000:02:00.0': { class: '0x010802', driver: 'nvme' } };
  const message = /no NVMe controller .*there is 0000:02:00\.0 \(driver nvme\)\. .*intel_iommu=on.*peerdma bind/;
  t.throws(() => findNvme(sysfs(t, devices)), { message });
  t.throws(() => findNvme(sysfs(t, { '0000:02:00.0': { class: '0x010802' } })), { message: /\(no driver\)/ });
  t.throws(() => findNvme(sysfs(t, { '0000:01:00.0': NETWORK })), { message: /there is none at all/ });
  t.throws(() => findNvme('/nowhere'), { message: /there is none at all/ });
});

test('without the device the example reports that and fails', (t) => {
  const script = fileURLToPath(new URL('../examples/nvme-identify.ts', import.meta.url));
  const args = ['--import=./scripts/typescript/register.mjs', script, 'ffff:ff:1f.7'];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  t.is(status, 1);
  t.is(stdout, '');
  t.regex(stderr, /^ERR_DEVICE_NOT_FOUND: there is no PCI device ffff:ff:1f\.7.*\n$/);
});
