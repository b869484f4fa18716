// Counts the tests of several suites.
import { say } from './command.mjs';

/** Counts tests. A suite counts as a failure too if it fails without a failing test, or runs no test. */
export class Count {
  passed = 0;
  failed = 0;
  skipped = 0;
  #failures = [];
  /** Number of failures of the suites before the current one. */
  #earlierFailures = 0;

  get total() {
    return this.passed + this.failed;
  }

  add(passed, failed, skipped) {
    this.passed += passed;
    this.failed += failed;
    this.skipped += skipped;
    if (failed > 0) this.#failures.push(`${failed} of cargo test`);
  }

  /** Adds the count of a suite that ran in parallel. */
  include(other) {
    this.passed += other.passed;
    this.failed += other.failed;
    this.skipped += other.skipped;
    this.#failures.push(...other.#failures);
    this.#earlierFailures = this.#failures.length;
  }

  /** Counts a result of `tap-parser`. @param {import('tap-parser').Result} result */
  test({ ok, skip, todo, name }) {
    if (skip || todo) this.skipped++;
    else if (ok) this.passed++;
    else {
      this.failed++;
      this.#failures.push(name);
    }
  }

  /** Counts a failure if a suite ran no test, or failed without a failing test. */
  require(what, status, ran) {
    if (status === 0 && ran > 0) return;
    const hasFailedTest = this.#failures.length > this.#earlierFailures;
    this.#earlierFailures = this.#failures.length;
    if (status !== 0 && hasFailedTest) return;
    this.failed++;
    this.#failures.push(status === 0 ? `${what}: no test ran` : `${what}: exit status ${status}`);
  }

  /** Prints the failures and the counts. Returns the exit status. */
  close() {
    for (const failure of this.#failures) say(`failed: ${failure}`);
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    return this.failed === 0 ? 0 : 1;
  }
}

/**
 * Runs a program whose standard output is in the Test Anything Protocol, and counts its tests.
 *
 * @param {Count} count
 * @param {(options: { onLine: (line: string) => void }) => Promise<number>} start runs it
 * @returns {Promise<number>} its exit status
 */
export async function countTap(count, start) {
  const { Parser } = await import('tap-parser'); // `npm ci` may have installed it after this module was loaded
  const parser = new Parser();
  parser.on('assert', (result) => count.test(result));
  const status = await start({ onLine: (line) => parser.write(`${line}\n`) });
  parser.end();
  return status;
}
