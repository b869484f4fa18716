/**
 * Checks of arguments that several commands take.
 */
import { resolve } from 'node:path';
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

/** Whether two arguments name one file. */
export function isSameFile(one: string, other: string): boolean {
  return one !== STANDARD_STREAM && other !== STANDARD_STREAM ? resolve(one) === resolve(other) : one === other;
}
