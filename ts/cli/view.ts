/**
 * `peerdma view`: a snapshot or a journal as a page.
 */
import { basename } from 'node:path';
import { STANDARD_STREAM, fileOption, isSameFile } from './arguments.ts';
import { type Command, UsageError } from './command.ts';
import { save } from './save.ts';
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
    if (file === undefined || file === '' || more.length > 0) {
      throw new UsageError('takes one file: a snapshot or a journal');
    }
    const output = fileOption({ values }, 'output') ?? pageOf(file);
    if (output !== STANDARD_STREAM && isSameFile(output, file)) {
      throw new UsageError(`would write the page over ${file}: name another --output`);
    }
    const title = file === STANDARD_STREAM ? 'standard input' : basename(file);
    save(output, await pageHtml({ title, ...(await readRecording(file)) }), terminal);
    if (output !== STANDARD_STREAM) terminal.stdout.line(`${output} is written: open it in a browser`);
    return 0;
  },
};

/** Where the page of a file goes when nothing else is said. */
function pageOf(file: string): string {
  return file === STANDARD_STREAM ? STANDARD_STREAM : `${file.replace(/\.(jsonl?|ndjson|txt)$/, '')}.html`;
}
