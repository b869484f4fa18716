/**
 * The devices that the tests may use: those of PEERDMA_VFIO_DEVICES. A test without its devices is skipped, and its
 * title names them.
 */
import { readFileSync } from 'node:fs';
import test, { type ImplementationFn, type TestFn } from 'ava';

const KINDS = {
  '0x1234:0x11e8': 'edu',
  '0x1af4:0x1110': 'ivshmem',
  '0x1b36:0x0010': 'nvme',
} as const;
type Kind = (typeof KINDS)[keyof typeof KINDS];

function kindOf(bdf: string): Kind | undefined {
  const id = (name: string) => readFileSync(`/sys/bus/pci/devices/${bdf}/${name}`, 'utf8').trim();
  return (KINDS as Record<string, Kind>)[`${id('vendor')}:${id('device')}`];
}

/** PCI addresses, in the order of PEERDMA_VFIO_DEVICES. */
export const all: readonly string[] = (process.env['PEERDMA_VFIO_DEVICES'] ?? '').split(',').filter(Boolean);

const byKind: Record<Kind, string[]> = { edu: [], ivshmem: [], nvme: [] };
for (const bdf of all) {
  const kind = kindOf(bdf);
  if (kind !== undefined) byKind[kind].push(bdf);
}

/** The number of devices of each kind that a test needs; `any` counts devices of all kinds. */
export type Needs = Partial<Record<Kind | 'any', number>>;

/** The devices a test asked for. */
export type Devices = Record<Kind | 'any', string[]>;

/** A test that runs where its devices are, and is skipped elsewhere. */
export function testWith(
  needs: Needs,
  title: string,
  run: (t: Parameters<ImplementationFn<[]>>[0], devices: Devices) => Promise<void>,
): void {
  const devices: Devices = { ...byKind, any: [...all] };
  const missing = (Object.entries(needs) as [Kind | 'any', number][]).filter(
    ([kind, count]) => devices[kind].length < count,
  );
  const suite: TestFn = test;
  if (missing.length > 0) {
    const wanted = missing.map(([kind, count]) => `${count} ${kind === 'any' ? 'device(s)' : kind}`).join(' and ');
    suite.serial.skip(`${title} (needs ${wanted} in PEERDMA_VFIO_DEVICES; npm test runs it in the testbed)`, () => {});
    return;
  }
  suite.serial(title, (t) => run(t, devices));
}
