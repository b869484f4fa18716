// Runs jobs two at a time and prints what each says as if they had run one after the other.
import { Count } from './count.mjs';

const AT_A_TIME = 2;

/**
 * @typedef {(count: Count, write: (text: string) => void) => Promise<void>} Job
 *   adds its tests to the count, and prints by `write` alone
 */

/**
 * Runs jobs that take one processor each.
 *
 * @param {Count} count of all
 * @param {Job[]} jobs the longest first
 */
export async function sideBySide(count, jobs) {
  const all = jobs.map((job) => ({ job, count: new Count(), output: new Output() }));
  for (const [index, { output }] of all.entries()) output.after = all[index + 1]?.output;
  all[0]?.output.show();
  const waiting = [...all];
  const next = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
      const { job, output } = one;
      await job(one.count, (text) => output.write(text));
      output.close();
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, next));
  for (const one of all) count.include(one.count);
}

/** What a job prints: kept until its turn. */
class Output {
  after;
  #kept = [];
  #shown = false;
  #closed = false;

  write(chunk) {
    if (this.#shown) process.stdout.write(chunk);
    else this.#kept.push(chunk);
  }

  show() {
    this.#shown = true;
    for (const chunk of this.#kept.splice(0)) process.stdout.write(chunk);
    if (this.#closed) this.after?.show();
  }

  close() {
    this.#closed = true;
    if (this.#shown) this.after?.show();
  }
}
