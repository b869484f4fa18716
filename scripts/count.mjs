// Counts tests over suites.
import { say } from './command.mjs';

/** Counts tests; a suite that failed without a failing test, or ran none, is a failure too. */
export class Count {
  passed = 0;
  failed = 0;
  skipped = 0;
  #failures = [];
  /** Failures of the suites before this one. */
  #required = 0;

  get total() {
    return this.passed + this.failed;
  }

  add(passed, failed, skipped) {
    this.passed += passed;
    this.failed += failed;
    this.skipped += skipped;
    if (failed > 0) this.#failures.push(`${failed} of cargo test`);
  }

  /** Takes over what was counted apart, because it ran beside other suites. */
  include(other) {
    this.passed += other.passed;
    this.failed += other.failed;
    this.skipped += other.skipped;
    this.#failures.push(...other.#failures);
    this.#required = this.#failures.length;
  }

  /** A line of the Test Anything Protocol. */
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

  require(what, status, ran) {
    if (status === 0 && ran > 0) return;
    const told = this.#failures.length > this.#required;
    this.#required = this.#failures.length;
    if (status !== 0 && told) return;
    this.failed++;
    this.#failures.push(status === 0 ? `${what}: no test ran` : `${what}: exit status ${status}`);
  }

  /** Prints the closing line. */
  close() {
    for (const failure of this.#failures) say(`failed: ${failure}`);
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    return this.failed === 0 ? 0 : 1;
  }
}
