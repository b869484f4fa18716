/**
 * The kernel that runs: its version, command line, configuration and modules.
 */
import { gunzipSync } from 'node:zlib';
import type { Unknown } from '../model.ts';
import { type KernelParameter, splitCommandLine } from './command-line.ts';
import type { SysFiles } from '../sys-files.ts';

/** A configuration is a quarter of a megabyte; what unpacks to more is none. */
const MOST_CONFIG_BYTES = 4 << 20;

/** How the kernel has a part of it: built in, as a module, or not at all. */
export type KernelOption = 'y' | 'm' | 'n';

/** The version of a kernel: its first two numbers. */
export interface KernelVersion {
  /** 6 of 6.12. */
  readonly major: number;
  /** 12 of 6.12. */
  readonly minor: number;
}

/** The kernel that runs. */
export interface KernelFacts extends KernelVersion {
  /** As `uname -r` has it. */
  readonly release: string;
  readonly commandLine: readonly KernelParameter[];
  /** Options without `CONFIG_`, those that are set; unknown where no file has them. */
  readonly config: ReadonlyMap<string, string> | Unknown;
  /** Modules that can be loaded and those built in, with `_` for `-`; unknown where no file lists them. */
  readonly modules: ReadonlySet<string> | Unknown;
}

/** @param files below the root of the file system; `undefined` for a machine of which only /sys is there @internal */
export function readKernel(files: SysFiles | undefined): KernelFacts | Unknown {
  const release = files?.word('proc/sys/kernel/osrelease');
  const version = versionOf(release ?? '');
  if (files === undefined || release === undefined || version === 'unknown') return 'unknown';
  return {
    release,
    ...version,
    commandLine: splitCommandLine(files.text('proc/cmdline') ?? ''),
    config: readConfiguration(files, release),
    modules: readModules(files, release),
  };
}

/** @param release as `uname -r` has it @internal */
export function versionOf(release: string): KernelVersion | Unknown {
  const numbers = /^(\d{1,4})\.(\d{1,4})/.exec(release);
  if (numbers === null || !/^[\w.+~-]+$/.test(release)) return 'unknown';
  return { major: Number(numbers[1]), minor: Number(numbers[2]) };
}

/** Whether it is of this version or later. @internal */
export function isAtLeast({ major, minor }: KernelVersion, wanted: readonly [major: number, minor: number]): boolean {
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}

/**
 * How the kernel has a module, by its configuration or else by its lists of modules.
 *
 * @param option without `CONFIG_`
 * @param module with `_` for `-`
 * @internal
 */
export function optionOf(kernel: KernelFacts | Unknown, option: string, module?: string): KernelOption | Unknown {
  if (kernel === 'unknown') return 'unknown';
  const { config, modules } = kernel;
  if (config !== 'unknown') {
    const value = config.get(option);
    return value === 'y' || value === 'm' ? value : 'n';
  }
  if (modules === 'unknown' || module === undefined) return 'unknown';
  return modules.has(module) ? 'm' : 'n';
}

function readConfiguration(files: SysFiles, release: string): ReadonlyMap<string, string> | Unknown {
  const text =
    unpacked(files.bytes('proc/config.gz')) ??
    files.text(`boot/config-${release}`) ??
    files.text(`lib/modules/${release}/config`);
  if (text === undefined || !text.includes('CONFIG_')) return 'unknown';
  return new Map([...text.matchAll(/^CONFIG_(\w+)=(.*)$/gm)].map(([, name = '', value = '']) => [name, value]));
}

function unpacked(bytes: Uint8Array | undefined): string | undefined {
  try {
    return bytes && gunzipSync(bytes, { maxOutputLength: MOST_CONFIG_BYTES }).toString('utf8');
  } catch {
    return undefined; // cut, or no such file at all
  }
}

/** `kernel/drivers/vfio/pci/vfio-pci.ko.xz: …` (modules.dep), without what follows the colon in modules.builtin. */
function readModules(files: SysFiles, release: string): ReadonlySet<string> | Unknown {
  const texts = ['dep', 'builtin'].map((list) => files.text(`lib/modules/${release}/modules.${list}`));
  if (texts.every((text) => text === undefined)) return 'unknown';
  const names = texts.flatMap((text = '') => [...text.matchAll(/^(?:[^\s:]*\/)?([\w-]+)\.ko/gm)]);
  return new Set(names.map(([, name = '']) => name.replaceAll('-', '_')));
}
