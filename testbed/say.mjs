// How the testbed tells what it is doing.

/**
 * Says something in a line of its own on standard error, where the command's output can't be taken for it.
 * @param {string} line
 */
export function say(line) {
  console.error(`testbed: ${line}`);
}
