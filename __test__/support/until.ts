/**
 * Waits for what happens when it happens: a machine under load keeps no deadlines.
 */
import { setImmediate as turn } from 'node:timers/promises';

/** Milliseconds after which what has not come does not come. Only tests that fail wait so long. */
const PATIENCE = 20_000;

/** Waits until what is told is so. */
export async function until(so: () => boolean, what: string): Promise<void> {
  for (const deadline = Date.now() + PATIENCE; !so();) {
    if (Date.now() > deadline) throw new Error(`still not so: ${what}`);
    await turn();
  }
}
