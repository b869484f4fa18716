/**
 * Calls that an `AbortSignal` aborts.
 */
import { readOptions } from './arguments.ts';
import { PeerDmaError } from './errors.ts';
import { valueText } from './value-text.ts';

/**
 * An `AbortSignal`. The class itself is not named here: it needs the types of Node or of a browser.
 */
export interface AbortSignalLike {
  /** Whether it is aborted. */
  readonly aborted: boolean;
  /** The reason of the abort, with which the call rejects. */
  readonly reason: unknown;
  /** Adds a listener for the abort. */
  addEventListener(type: 'abort', listener: () => void): void;
  /** Removes a listener. */
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** Options of a call that can be aborted. */
export interface AbortOptions {
  /**
   * Aborts the call, which rejects with the reason of the signal. A call that has not started yet never starts. A step
   * in the kernel that has started is completed first. Default: none
   */
  readonly signal?: AbortSignalLike | undefined;
}

/**
 * Checks the signal of a caller.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for other values than an `AbortSignal` or `undefined`
 * @internal
 */
export function requireSignal(signal: AbortSignalLike | undefined): AbortSignalLike | undefined {
  if (signal === undefined) return undefined;
  const names = ['aborted', 'addEventListener', 'removeEventListener'] as const;
  const { aborted, addEventListener, removeEventListener } = readOptions(signal, names, 'signal');
  const isSignal = typeof addEventListener === 'function' && typeof removeEventListener === 'function';
  if (typeof aborted === 'boolean' && isSignal) return signal;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"signal" is an AbortSignal, not ${valueText(signal)}`);
}

/** The signal in the options of a caller. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readSignal(options: AbortOptions): AbortSignalLike | undefined {
  return requireSignal(readOptions(options, ['signal']).signal);
}

/** @throws the reason of the signal, if it is aborted @internal */
export function throwIfAborted(signal: AbortSignalLike | undefined): void {
  if (signal?.aborted === true) throw signal.reason;
}

/**
 * Runs a call that waits in a queue before it starts.
 *
 * @param run calls `onTurn` when its turn comes, before it changes anything. `onTurn` throws the reason of an aborted
 * signal. Until it is called, an abort rejects at once. From then on an abort takes effect when `run` has ended
 * @param undo undoes a result that arrives after an abort
 * @throws the error of `run` or `undo`; the reason of the signal
 * @internal
 */
export async function runAbortable<T>(
  signal: AbortSignalLike | undefined,
  run: (onTurn: () => void) => Promise<T>,
  undo: (result: T) => Promise<void> = async () => {},
): Promise<T> {
  if (signal === undefined) return run(() => {});
  throwIfAborted(signal);
  let onAbort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
  });
  const stopListening = (): void => signal.removeEventListener('abort', onAbort);
  const onTurn = (): void => {
    stopListening();
    throwIfAborted(signal);
  };
  signal.addEventListener('abort', onAbort);
  try {
    const result = await Promise.race([run(onTurn), aborted]);
    if (!signal.aborted) return result;
    await undo(result);
    throw signal.reason;
  } finally {
    stopListening();
  }
}
