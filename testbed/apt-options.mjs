// `node testbed/apt-options.mjs FOLDER SUITE…` fetches the package lists of suites that the machine does not list
// (see apt.mjs) into FOLDER, and prints the apt options that use them, one per line. Used by .ci/run.
import { openApt } from './apt.mjs';

const [folder, ...suites] = process.argv.slice(2);
if (folder === undefined || suites.length === 0) {
  console.error('usage: node testbed/apt-options.mjs FOLDER SUITE…');
  process.exit(2);
}
try {
  for (const option of await openApt(folder, suites)) console.log(option);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
