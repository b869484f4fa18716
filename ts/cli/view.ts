/**
 * `peerdma view`: a snapshot or a journal as a page.
 */
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { PeerDmaError, asError } from '../errors.ts';
import { type Command, UsageError } from './command.ts';
import { readRecording } from './view/file.ts';
import { pageHtml } from './view/html.ts';

export const viewCommand: Command = {
  summary: 'makes a page of a snapshot or a journal of guest memory',
  usage: `peerdma view FILE [--output PAGE.html]

FILE is JSON of what memory.inspect() gives, or what recordJournal(memory, FILE) has written; - is standard input.
The page is one file that loads nothing else. It is written to PAGE.html, by default FILE with the ending .html, and to
standard output for -.
`,
  options: { output: { type: 'string', short: 'o' } },
  async run({ values, positionals }, terminal) {
    const [file, ...more] = positionals;
    if (file === undefined || more.length > 0) throw new UsageError('takes one file: a snapshot or a journal');
    const { output = file === '-' ? '-' : file.replace(/\.(jsonl?|ndjson|txt)$/, '') + '.html' } = values;
    if (typeof output !== 'string') throw new UsageError('takes one --output');
    if (output === file && file !== '-')
      throw new UsageError(`would write the page over ${file}: name another --output`);
    const html = await pageHtml({ title: file === '-' ? 'standard input' : basename(file), ...readRecording(file) });
    if (output === '-') {
      terminal.stdout.write(html);
    } else {
      write(output, html);
      terminal.stdout.write(`${output} is written: open it in a browser\n`);
    }
    return 0;
  },
};

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    throw new PeerDmaError('ERR_SYSTEM', `can't write ${file}: ${error.message}`, { errno: error.code, cause: thrown });
  }
}
