/**
 * `peerdma explain`: explains an address of a snapshot, or of the last state of a journal.
 */
import { explain } from '../guest/explain.ts';
import { type Command, UsageError } from './command.ts';
import { readLastSnapshot } from './view/recording.ts';

export const explainCommand: Command = {
  usage: `peerdma explain FILE ADDRESS [TARGET] [--json]

Explains which memory is at an address, and for each target whether it reaches that memory or why not.

  FILE     a snapshot (JSON of memory.inspect()), or a journal of recordJournal(memory, FILE), whose last state is used;
           - is standard input
  ADDRESS  a guest-physical address, such as 0xe0000000
  TARGET   the name of a DMA target. Default: all targets
  --json   the explanation as JSON
`,
  options: { json: { type: 'boolean' } },
  async run({ values, positionals }, terminal) {
    const [file, address, target, ...more] = positionals;
    if (file === undefined || file === '' || address === undefined || more.length > 0) {
      throw new UsageError('takes a file, an address, and optionally the name of a target');
    }
    const asked = guestAddress(address);
    const found = explain(await readLastSnapshot(file), asked, target);
    if (values['json'] === true) await terminal.stdout.json(found);
    else terminal.stdout.line(found.text);
    return 0;
  },
};

function guestAddress(text: string): bigint {
  const address = /^(?:0x[0-9a-f]+|\d+)$/i.test(text) ? BigInt(text) : undefined;
  if (address !== undefined && address < 1n << 64n) return address;
  throw new UsageError(`${JSON.stringify(text)} is not an address of 64 bits, such as 0x1000`);
}
