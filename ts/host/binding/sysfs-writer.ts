/**
 * Changes the machine: writes to /sys and loads modules. No other file does.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { withSbin } from '../machine.ts';
import { overrideOf } from '../pci-function.ts';
import { DEVICES, SysFiles } from '../sys-files.ts';
import type { SysWrite } from './plan.ts';

/** Writes to /sys and loads modules; tests replace it. @internal */
export interface SysfsWriter {
  /** Throws an errno if a write to the file would be denied. */
  tryAccess(path: string): void;
  write(write: SysWrite): void;
  /** Returns the current driver of a device. */
  driverOf(address: string): string | undefined;
  /** Returns the current `driver_override` of a device. */
  overrideOf(address: string): string | undefined;
  /** @returns the reason why the module was not loaded; `undefined` if it was */
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
      // Neither creates nor truncates a file: attributes exist, or the write fails.
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
