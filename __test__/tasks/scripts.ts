/** The scripts behind `npm test`, which are JavaScript. */
export interface Prerequisite {
  readonly program?: string;
  readonly file?: string;
  readonly from: string;
  readonly skipped?: string;
}

/** A result in the Test Anything Protocol. */
export interface Count {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly total: number;
  require(what: string, status: number, ran: number): void;
  close(): number;
}

type Job = (count: Count, write: (text: string) => void) => Promise<void>;

/** The top of the checkout. */
export const top: URL = new URL('../../', import.meta.url);

const load = async <T>(name: string): Promise<T> => (await import(new URL(`scripts/${name}`, top).href)) as T;

export const { ALL, BUILD, missing } = await load<{
  ALL: readonly Prerequisite[];
  BUILD: readonly Prerequisite[];
  missing(prerequisites: readonly Prerequisite[], machine: { path: string; root: string }): Prerequisite[];
}>('prerequisites.mjs');

export const { findTests } = await load<{
  findTests(
    name: string,
    top: string,
    options?: { guestsOnly: boolean },
  ): Promise<{ unit: string[]; guests: string[]; nearest: string[] }>;
}>('test-names.mjs');

export const { Count, countTap } = await load<{
  Count: new () => Count;
  countTap(count: Count, start: (options: { onLine(line: string): void }) => Promise<number>): Promise<number>;
}>('count.mjs');

export const { sideBySide } = await load<{ sideBySide(count: Count, jobs: readonly Job[]): Promise<void> }>(
  'side-by-side.mjs',
);
