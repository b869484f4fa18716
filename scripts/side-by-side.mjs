// Runs jobs three at a time, and prints their output in the order of the jobs.
import { Count } from './count.mjs';

/**
 * One more than the processors of a small machine. A guest waits for a third of its time, because QEMU's edu takes
 * 100 ms for each transfer.
 */
const PARALLEL_JOBS = 3;

/**
 * @typedef {(count: Count, write: (text: string) => void) => Promise<void>} Job
 *   adds its tests to the count, and prints only with `write`
 */

/**
 * Runs jobs that use one processor each, or less.
 *
 * @param {Count} count counts the tests of all jobs
 * @param {Job[]} jobs the jobs, the longest first
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
  await Promise.all(Array.from({ length: PARALLEL_JOBS }, next));
  for (const one of all) count.include(one.count);
}

/** The output of a job: buffered until all jobs before it have ended. */
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
