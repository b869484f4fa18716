/**
 * Reads the running kernel: version, command line, configuration and modules.
 */
import { gunzipSync } from 'node:zlib';
import type { UnknownFact } from '../model.ts';
import { type KernelParameter, splitCommandLine } from './command-line.ts';
import type { SysFiles } from '../sys-files.ts';

/** Limit for an unpacked configuration, which has about a quarter of a megabyte. */
const MAX_CONFIG_BYTES = 4 << 20;

/** State of a kernel option: built in, a module, or not set. */
export type KernelOption = 'y' | 'm' | 'n';

/** The first two numbers of a kernel version. */
export interface KernelVersion {
  /** First number: 6 in 6.12. */
  readonly major: number;
  /** Second number: 12 in 6.12. */
  readonly minor: number;
}

/** First kernel with `VFIO_DEVICE_FEATURE_DMA_BUF`, which exports BARs. @internal */
export const DMA_BUFS_SINCE = [6, 19] as const;

/** Facts of the running kernel. */
export interface KernelFacts extends KernelVersion {
  /** Release as `uname -r` prints it. */
  readonly release: string;
  readonly commandLine: readonly KernelParameter[];
  /** Set options without `CONFIG_`; unknown if no file lists them. */
  readonly config: ReadonlyMap<string, string> | UnknownFact;
  /** Loadable and built-in modules, with `_` for `-`; unknown if no file lists them. */
  readonly modules: ReadonlySet<string> | UnknownFact;
}

/** @param files the root of the file system; `undefined` if only a recorded /sys exists @internal */
export function readKernel(files: SysFiles | undefined): KernelFacts | UnknownFact {
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

/** @param release release as `uname -r` prints it @internal */
export function versionOf(release: string): KernelVersion | UnknownFact {
  const numbers = /^(\d{1,4})\.(\d{1,4})/.exec(release);
  if (numbers === null || !/^[\w.+~-]+$/.test(release)) return 'unknown';
  return { major: Number(numbers[1]), minor: Number(numbers[2]) };
}

/** Whether the kernel has this version or a later one. @internal */
export function isAtLeast({ major, minor }: KernelVersion, wanted: readonly [major: number, minor: number]): boolean {
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}

/**
 * Returns the state of an option, by the configuration or else by the lists of modules.
 *
 * @param option name without `CONFIG_`
 * @param module name of its module, with `_` for `-`
 * @internal
 */
export function optionOf(
  kernel: KernelFacts | UnknownFact,
  option: string,
  module?: string,
): KernelOption | UnknownFact {
  if (kernel === 'unknown') return 'unknown';
  const { config, modules } = kernel;
  if (config !== 'unknown') {
    const value = config.get(option);
    return value === 'y' || value === 'm' ? value : 'n';
  }
  if (modules === 'unknown' || module === undefined) return 'unknown';
  return modules.has(module) ? 'm' : 'n';
}

function readConfiguration(files: SysFiles, release: string): ReadonlyMap<string, string> | UnknownFact {
  const text =
    unpacked(files.bytes('proc/config.gz')) ??
    files.text(`boot/config-${release}`) ??
    files.text(`lib/modules/${release}/config`);
  if (text === undefined || !text.includes('CONFIG_')) return 'unknown';
  return new Map([...text.matchAll(/^CONFIG_(\w+)=(.*)$/gm)].map(([, name = '', value = '']) => [name, value]));
}

function unpacked(bytes: Uint8Array | undefined): string | undefined {
  try {
    return bytes && gunzipSync(bytes, { maxOutputLength: MAX_CONFIG_BYTES }).toString('utf8');
  } catch {
    return undefined; // truncated or not a gzip file
  }
}

/** Parses `kernel/drivers/vfio/pci/vfio-pci.ko.xz: …` of modules.dep. Lines of modules.builtin end before the colon. */
function readModules(files: SysFiles, release: string): ReadonlySet<string> | UnknownFact {
  const texts = ['dep', 'builtin'].map((list) => files.text(`lib/modules/${release}/modules.${list}`));
  if (texts.every((text) => text === undefined)) return 'unknown';
  const names = texts.flatMap((text = '') => [...text.matchAll(/^(?:[^\s:]*\/)?([\w-]+)\.ko/gm)]);
  return new Set(names.map(([, name = '']) => name.replaceAll('-', '_')));
}
