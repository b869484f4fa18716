/**
 * Waits for conditions instead of fixed times: a loaded machine keeps no deadlines.
 */
import { setImmediate as turn } from 'node:timers/promises';

/** The timeout in milliseconds. Only failing tests wait so long. */
const PATIENCE = 20_000;

/** Waits until a condition holds. */
export async function until(so: () => boolean, what: string): Promise<void> {
  for (const deadline = Date.now() + PATIENCE; !so();) {
    if (Date.now() > deadline) throw new Error(`timeout: ${what}`);
    await turn();
  }
}
