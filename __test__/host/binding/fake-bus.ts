/**
 * Fake PCI bus. Performs writes to /sys on files, fails chosen ones, and moves driver links like the kernel.
 */
import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type SysfsWriter, newSysfsWriter } from '../../../ts/host/binding/sysfs-writer.ts';
import type { SysWrite } from '../../../ts/host/binding/plan.ts';
import { overrideOf } from '../../../ts/host/pci-function.ts';

export class FakeBus implements SysfsWriter {
  /** All writes, as `TEXT > PATH`. */
  readonly writes: string[] = [];
  readonly modules: string[] = [];
  /** The writes that fail, counted from 1. */
  failing: (count: number) => boolean = () => false;
  /** Whether a failing write takes effect. */
  failsLate = false;
  /** Devices whose probe fails, with any driver. */
  readonly untaken = new Set<string>();
  loadProblem: string | undefined;
  readonly #sys: string;
  readonly #native: Readonly<Record<string, string>>;
  readonly #writer: SysfsWriter;

  /** @param native the driver that the kernel finds for a device by its id */
  constructor(sys: string, native: Readonly<Record<string, string>>) {
    this.#sys = sys;
    this.#native = native;
    this.#writer = newSysfsWriter(sys);
  }

  tryAccess(path: string): void {
    this.#writer.tryAccess(path);
  }

  driverOf(address: string): string | undefined {
    return this.#writer.driverOf(address);
  }

  overrideOf(address: string): string | undefined {
    return this.#writer.overrideOf(address);
  }

  loadModule(name: string): string | undefined {
    this.modules.push(name);
    return this.loadProblem;
  }

  write(write: SysWrite): void {
    this.writes.push(`${write.text.trim()} > ${write.path}`);
    const fails = this.failing(this.writes.length);
    if (fails && !this.failsLate) throw Object.assign(new Error('EIO'), { code: 'EIO' });
    this.#writer.write(write);
    this.#react(write);
    if (fails) throw Object.assign(new Error('EIO'), { code: 'EIO' });
  }

  #react({ path, text }: SysWrite): void {
    const address = text.trim();
    const [, driver = '', act] = /^bus\/pci\/drivers\/([^/]+)\/(bind|unbind)$/.exec(path) ?? [];
    if (path.endsWith('/driver_override')) writeFileSync(join(this.#sys, path), `${address || '(null)'}\n`);
    else if (act === 'unbind') this.#unbind(address, driver);
    else if (act === 'bind') this.#bind(address, driver);
    else if (this.driverOf(address) === undefined && !this.untaken.has(address)) {
      const found = this.#overrideOf(address) ?? this.#native[address];
      if (found !== undefined) this.#link(address, found);
    }
  }

  #unbind(address: string, driver: string): void {
    if (this.driverOf(address) !== driver) throw Object.assign(new Error('ENODEV'), { code: 'ENODEV' });
    rmSync(this.#driverPath(address));
  }

  #bind(address: string, driver: string): void {
    const only = this.#overrideOf(address);
    const fits = only === undefined ? this.#native[address] === driver : only === driver;
    if (!fits || this.driverOf(address) !== undefined) throw Object.assign(new Error('ENODEV'), { code: 'ENODEV' });
    this.#link(address, driver);
  }

  #overrideOf(address: string): string | undefined {
    return overrideOf(readFileSync(join(this.#sys, 'bus/pci/devices', address, 'driver_override'), 'utf8').trim());
  }

  #link(address: string, driver: string): void {
    symlinkSync(`../../../bus/pci/drivers/${driver}`, this.#driverPath(address));
  }

  #driverPath(address: string): string {
    return join(this.#sys, 'bus/pci/devices', address, 'driver');
  }
}
