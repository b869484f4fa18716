/**
 * The one place where something of the machine is changed: writes to /sys, and modprobe.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { withSbin } from '../machine.ts';
import { DEVICES, overrideOf } from '../pci-function.ts';
import { SysFiles } from '../sys-files.ts';
import type { SysWrite } from './plan.ts';

/** @internal */
export interface SysfsWriter {
  /** Fails, with an errno, where a write to the file would be denied. */
  tryAccess(path: string): void;
  write(write: SysWrite): void;
  /** The driver that has a device now. */
  driverOf(address: string): string | undefined;
  /** The only driver that may have it (`driver_override`). */
  overrideOf(address: string): string | undefined;
  /** @returns why the module could not be loaded; `undefined` where it was */
  loadModule(name: string): string | undefined;
}

/** @param sys the root of /sys @internal */
export function newSysfsWriter(sys: string): SysfsWriter {
  const files = new SysFiles(sys);
  return {
    tryAccess(path) {
      accessSync(join(sys, path), constants.W_OK);
    },
    write({ path, text }) {
      // Never creates a file, nor truncates one: it is an attribute, or it is not there.
      const fd = openSync(join(sys, path), constants.O_WRONLY);
      try {
        writeSync(fd, text);
      } finally {
        closeSync(fd);
      }
    },
    driverOf(address) {
      return files.linkName(`${DEVICES}/${address}/driver`);
    },
    overrideOf(address) {
      return overrideOf(files.word(`${DEVICES}/${address}/driver_override`));
    },
    loadModule(name) {
      const { error, status, stderr } = spawnSync('modprobe', [name], {
        encoding: 'utf8',
        env: { ...process.env, PATH: withSbin() },
      });
      if (error !== undefined) return error.message;
      return status === 0 ? undefined : stderr.trim() || `exit status ${status}`;
    },
  };
}
