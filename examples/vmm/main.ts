/**
 * A small VMM: `npm run vmm -- --help`.
 */
import { USAGE, readArguments } from './arguments.ts';
import { UsageError, failureText } from './failures.ts';
import { runGuest } from './machine.ts';

/** Returns the exit status. */
async function main(args: readonly string[]): Promise<number> {
  const guest = readArguments(args);
  if (guest === 'help') {
    console.log(USAGE);
    return 0;
  }
  const reason = await runGuest(guest);
  console.error(`\r\nvmm: the guest stopped: ${reason}`);
  return reason === 'shutdown' || reason === 'quit' ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(`vmm: ${failureText(error)}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
