/**
 * `peerdma explain`: what is at an address of a snapshot or of the end of a journal.
 */
import { explain } from '../guest/explain.ts';
import { type Command, UsageError } from './command.ts';
import { readLastSnapshot } from './view/recording.ts';

export const explainCommand: Command = {
  summary: 'says what is at an address of guest memory, and who reaches it or why not',
  usage: `peerdma explain FILE ADDRESS [TARGET] [--json]

FILE is JSON of what memory.inspect() gives, or a journal by recordJournal(memory, FILE), whose end is looked at; - is
standard input. ADDRESS is guest-physical, such as 0xe0000000. TARGET is the name of a DMA target: default, all of them.
`,
  options: { json: { type: 'boolean' } },
  async run({ values, positionals }, terminal) {
    const [file, address, target, ...more] = positionals;
    if (file === undefined || file === '' || address === undefined || more.length > 0) {
      throw new UsageError('takes a file, an address, and perhaps the name of a target');
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
