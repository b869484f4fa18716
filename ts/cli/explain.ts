/**
 * `peerdma explain`: what is at an address of a snapshot or of the end of a journal.
 */
import { explain } from '../guest/explain.ts';
import { type Command, UsageError } from './command.ts';
import { lastOf, readRecording } from './view/file.ts';

export const explainCommand: Command = {
  summary: 'says what is at an address of guest memory, and who reaches it or why not',
  usage: `peerdma explain FILE ADDRESS [TARGET] [--json]

FILE is JSON of what memory.inspect() gives, or a journal by recordJournal(memory, FILE), whose end is looked at; - is
standard input. ADDRESS is guest-physical, such as 0xe0000000. TARGET is the name of a DMA target: default, all of them.
`,
  options: { json: { type: 'boolean' } },
  async run({ values, positionals }, terminal) {
    const [file, address, target, ...more] = positionals;
    if (file === undefined || address === undefined || more.length > 0) {
      throw new UsageError('takes a file, an address, and perhaps the name of a target');
    }
    if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(address)) throw new UsageError(`${address} is no address: 0x1000, say`);
    const found = explain(lastOf(readRecording(file)), BigInt(address), target);
    terminal.stdout.write(values['json'] === true ? `${JSON.stringify(found, null, 2)}\n` : `${found.text}\n`);
    return 0;
  },
};
