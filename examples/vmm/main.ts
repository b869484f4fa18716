/**
 * A small VMM: `npm run vmm -- --help`.
 */
import { UsageError } from '../../ts/cli/command.ts';
import { USAGE, readArguments } from './arguments.ts';
import { runGuest } from './machine.ts';

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
  if (!(error instanceof Error)) throw error;
  console.error(`vmm: ${error.message}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
