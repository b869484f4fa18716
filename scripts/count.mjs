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

  /** Counts the test of a line of the Test Anything Protocol. */
  tap(line) {
    const result = /^(not )?ok \d+ - (.*)$/.exec(line);
    if (result === null) return;
    const [, not, name] = result;
    if (/# (SKIP|TODO)/.test(name)) this.skipped++;
    else if (not === undefined) this.passed++;
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
