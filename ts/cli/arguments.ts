/**
 * Checks arguments that several commands have in common.
 */
import { lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { parsePciAddress } from '../host/address.ts';
import { type Invocation, UsageError } from './command.ts';

/** The argument that stands for standard output, or standard input, instead of a file. */
export const STANDARD_STREAM = '-';

/**
 * Returns the PCI addresses of a command line in the spelling of /sys, without duplicates.
 *
 * @throws {UsageError} when an argument is not a PCI address
 */
export function deviceArguments(texts: readonly string[]): string[] {
  const addresses = texts.map((text) => {
    const address = parsePciAddress(text);
    if (address !== undefined) return address;
    throw new UsageError(`${JSON.stringify(text)} is not a PCI address, such as 0000:01:00.0`);
  });
  return [...new Set(addresses)];
}

/**
 * Returns the value of an option that names a file or folder; `undefined` if the option is absent.
 *
 * @throws {UsageError} when the name is empty
 */
export function fileOption({ values }: Pick<Invocation, 'values'>, name: string): string | undefined {
  const value = values[name];
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '') return value;
  throw new UsageError(`--${name} takes a name`);
}

/** Whether two arguments name the same file, also by different paths or links. */
export function isSameFile(one: string, other: string): boolean {
  if (one === STANDARD_STREAM || other === STANDARD_STREAM) return one === other;
  return resolve(one) === resolve(other) || identityOf(one) === identityOf(other);
}

/** Returns a key that is equal for all paths of one regular file. The file need not exist. */
function identityOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stats?.isFile() === true) return `inode ${stats.ino} of ${stats.dev}`;
    return stats === undefined ? targetOf(path) : resolve(path);
  } catch {
    return resolve(path); // unreadable: opening it reports why
  }
}

/** Returns the path that a write would create: a symbolic link may point to a file that does not exist. */
function targetOf(path: string): string {
  const name = join(realpathSync(dirname(path)), basename(path));
  const isLink = lstatSync(name, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  return isLink ? targetOf(resolve(dirname(name), readlinkSync(name))) : name;
}
