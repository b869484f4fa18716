/**
 * Checks of arguments that several commands take.
 */
import { lstatSync, readlinkSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { parsePciAddress } from '../host/address.ts';
import { type Invocation, UsageError } from './command.ts';

/** Written for standard output, or standard input, in place of a file. */
export const STANDARD_STREAM = '-';

/**
 * Devices of a command line, each once, as /sys writes their addresses.
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
 * The value of an option that names a file or folder; `undefined` when it is not given.
 *
 * @throws {UsageError} when the name is empty
 */
export function fileOption({ values }: Pick<Invocation, 'values'>, name: string): string | undefined {
  const value = values[name];
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '') return value;
  throw new UsageError(`--${name} takes a name`);
}

/** Whether two arguments name one file, by whatever path or link. */
export function isSameFile(one: string, other: string): boolean {
  if (one === STANDARD_STREAM || other === STANDARD_STREAM) return one === other;
  return resolve(one) === resolve(other) || identityOf(one) === identityOf(other);
}

/** What two paths of one regular file have in common. The file need not exist. */
function identityOf(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stats?.isFile() === true) return `inode ${stats.ino} of ${stats.dev}`;
    return stats === undefined ? targetOf(path) : resolve(path);
  } catch {
    return resolve(path); // unreadable: opening it reports why
  }
}

/** Where writing to a path makes a file: a symbolic link may lead to one that does not exist. */
function targetOf(path: string): string {
  const name = join(realpathSync(dirname(path)), basename(path));
  const isLink = lstatSync(name, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  return isLink ? targetOf(resolve(dirname(name), readlinkSync(name))) : name;
}
