/**
 * Resources of this process that could leak. Process-wide: for a process of its own, started with `--expose-gc`.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { queryObjects } from 'node:v8';

export interface Held {
  readonly descriptors: number;
  /** Virtual memory: lines of `/proc/self/maps`. */
  readonly mappings: number;
  readonly residentBytes: number;
  /** V8's heap, including compiled code, which grows for a while. */
  readonly heapBytes: number;
  /** JavaScript objects of every kind. */
  readonly objects: number;
}

/** Counts after garbage collections: finalisers run after a collection, and free more. */
export async function held(): Promise<Held> {
  if (globalThis.gc === undefined) throw new Error('needs node --expose-gc');
  for (let time = 0; time < 4; time++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const descriptors = readdirSync('/proc/self/fd').length;
  const mappings = readFileSync('/proc/self/maps', 'utf8').trimEnd().split('\n').length;
  const { rss, heapUsed } = process.memoryUsage();
  return {
    descriptors,
    mappings,
    residentBytes: rss,
    heapBytes: heapUsed,
    objects: queryObjects(Object, { format: 'count' }),
  };
}
