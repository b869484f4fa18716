/**
 * The failures of the VMM, and their texts for its user.
 */
import { PeerDmaError } from 'peerdma';
import { getSystemErrorMap, inspect } from 'node:util';

/** An invalid command line. The message has the remedy. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** A guest that cannot be set up. The message has the remedy. */
export class SetupError extends Error {
  override readonly name = 'SetupError';
}

/** Returns the message of a failure. For a mistake in a program, such as a device of the VMM, it has the stack. */
export function failureText(thrown: unknown): string {
  if (thrown instanceof UsageError || thrown instanceof SetupError) return thrown.message;
  if (!(thrown instanceof PeerDmaError)) return inspect(thrown);
  const { code, message, cause } = thrown;
  const isHandlers = code === 'ERR_CPU_FAILED' && cause !== undefined;
  return `${code}: ${message}${isHandlers ? `\n${inspect(cause)}` : ''}`;
}

/** Returns the reason of a failed system call of Node, such as `no such file or directory (ENOENT)`. */
export function systemReason(error: NodeJS.ErrnoException): string {
  const [name, text] = getSystemErrorMap().get(error.errno ?? 0) ?? [];
  return name === undefined ? error.message : `${text} (${name})`;
}
