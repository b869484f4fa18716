/**
 * Half of a group with VFIO serves nobody: who interrupts the program, or loses the line to it, has it finish first.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Does something synchronous, meanwhile deaf to signals that would end the process. */
export function ignoringSignals<T>(act: () => T): T {
  const ignore = (): void => {};
  for (const signal of SIGNALS) process.on(signal, ignore);
  try {
    return act();
  } finally {
    for (const signal of SIGNALS) process.off(signal, ignore);
  }
}
