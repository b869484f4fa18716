// Status lines of the testbed.

/**
 * Prints a status line on standard error, marked so that it differs from the command's output.
 * @param {string} line
 */
export function say(line) {
  console.error(`testbed: ${line}`);
}
