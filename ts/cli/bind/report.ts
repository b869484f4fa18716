/**
 * The output of `peerdma bind` and `peerdma unbind`.
 */
import type { Rebound } from '../../host/binding/perform.ts';
import type { BindingPlan } from '../../host/binding/plan.ts';
import type { PciFunction } from '../../host/model.ts';

/** Returns a line for each device: its old and its new driver. */
export function resultLines({ unchanged }: BindingPlan, done: readonly Rebound[]): string[] {
  return [
    ...unchanged.map(({ address, driver }) => `${address} ${currentDriver(driver)} already`),
    ...done.map(({ device, driver }) => `${device.address} ${oldDriver(device)} ${newDriver(driver)}`),
  ];
}

/** Returns the shell commands that perform the plan. */
export function planLines({ module, changes, unchanged }: BindingPlan): string[] {
  return [
    ...unchanged.map(({ address, driver }) => `# ${address} ${currentDriver(driver)} already`),
    ...(module === undefined ? [] : [`modprobe ${shellQuoted(module)}`]),
    ...changes
      .flatMap(({ writes }) => writes)
      .map(({ path, text }) => `echo ${shellQuoted(text.trim())}`.trimEnd() + ` > ${shellQuoted(`/sys/${path}`)}`),
  ];
}

/** Returns the result of a performed plan as JSON. */
export function resultJson({ module, unchanged }: BindingPlan, done: readonly Rebound[], notes: string[]): unknown {
  const devices = [
    ...unchanged.map(({ address, driver = null }) => ({ address, from: driver, to: driver })),
    ...done.map(({ device, driver = null }) => ({ address: device.address, from: device.driver ?? null, to: driver })),
  ];
  return { module: module ?? null, devices, notes };
}

/** Returns a plan as JSON. Leaves out `to` if the kernel will choose the driver. */
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
  return driver === undefined ? 'has no driver' : `is bound to ${driver}`;
}

function oldDriver({ driver }: PciFunction): string {
  return driver === undefined ? 'from no driver' : `from ${driver}`;
}

function newDriver(driver: string | undefined): string {
  return driver === undefined ? 'to none: no driver of this kernel binds to it' : `to ${driver}`;
}

/** Quotes a shell word if it has special characters. Names of drivers may have any character. */
function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]*$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
