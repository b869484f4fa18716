/**
 * What `peerdma bind` and `peerdma unbind` print.
 */
import type { Rebound } from '../../host/binding/perform.ts';
import type { BindingPlan } from '../../host/binding/plan.ts';
import type { PciFunction } from '../../host/model.ts';

/** A line for each device. */
export function resultLines({ unchanged }: BindingPlan, done: readonly Rebound[]): string[] {
  return [
    ...unchanged.map(({ address, driver }) => `${address} ${currentDriver(driver)} already`),
    ...done.map(({ device, driver }) => `${device.address} ${oldDriver(device)} ${newDriver(driver)}`),
  ];
}

/** The commands of a shell that would do it. */
export function planLines({ module, changes, unchanged }: BindingPlan): string[] {
  return [
    ...unchanged.map(({ address, driver }) => `# ${address} ${currentDriver(driver)} already`),
    ...(module === undefined ? [] : [`modprobe ${shellQuoted(module)}`]),
    ...changes
      .flatMap(({ writes }) => writes)
      .map(({ path, text }) => `echo ${shellQuoted(text.trim())}`.trimEnd() + ` > ${shellQuoted(`/sys/${path}`)}`),
  ];
}

export function resultJson({ module, unchanged }: BindingPlan, done: readonly Rebound[], notes: string[]): unknown {
  const devices = [
    ...unchanged.map(({ address, driver = null }) => ({ address, from: driver, to: driver })),
    ...done.map(({ device, driver = null }) => ({ address: device.address, from: device.driver ?? null, to: driver })),
  ];
  return { module: module ?? null, devices, notes };
}

/** Of a driver that only the kernel will know, `to` is left out. */
export function planJson({ module, changes, unchanged }: BindingPlan, notes: string[]): unknown {
  const devices = [
    ...unchanged.map(({ address, driver = null }) => ({ address, from: driver, to: driver, writes: [] })),
    ...changes.map(({ device, to: driver, writes }) => ({
      address: device.address,
      from: device.driver ?? null,
      to: driver,
      writes: writes.map(({ path, text }) => ({ path: `/sys/${path}`, text })),
    })),
  ];
  return { module: module ?? null, devices, notes };
}

function currentDriver(driver: string | undefined): string {
  return driver === undefined ? 'has no driver' : `is with ${driver}`;
}

function oldDriver({ driver }: PciFunction): string {
  return driver === undefined ? 'from no driver' : `from ${driver}`;
}

function newDriver(driver: string | undefined): string {
  return driver === undefined ? 'to none: this kernel has no driver that takes it' : `to ${driver}`;
}

/** A word of a shell, in quotes when the shell would split it or give it a meaning. The name of a driver may be any. */
function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]*$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
