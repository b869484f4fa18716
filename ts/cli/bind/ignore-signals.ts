/**
 * Ignores signals while devices are bound: an interrupted command must not leave a group partly bound.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs a synchronous function and ignores signals that would end the process meanwhile. */
export function ignoringSignals<T>(act: () => T): T {
  const ignore = (): void => {};
  for (const signal of SIGNALS) process.on(signal, ignore);
  try {
    return act();
  } finally {
    for (const signal of SIGNALS) process.off(signal, ignore);
  }
}
