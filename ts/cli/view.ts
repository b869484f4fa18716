/**
 * `peerdma view`: a snapshot or a journal as a page.
 */
import { basename } from 'node:path';
import { STANDARD_STREAM, fileOption, isSameFile } from './arguments.ts';
import { type Command, type Invocation, UsageError } from './command.ts';
import { save } from './save.ts';
import { readRecording } from './view/recording.ts';
import { pageHtml } from './view/html.ts';

/** A page holds the state after each of its lines: more lines than these make it slow. */
const LINES = 10_000;

export const viewCommand: Command = {
  summary: 'makes a page of a snapshot or a journal of guest memory',
  usage: `peerdma view FILE [--output PAGE.html] [--last COUNT]

FILE is JSON of what memory.inspect() gives, or what recordJournal(memory, FILE) has written; - is standard input.
The page is one file that loads nothing else. It is written to PAGE.html, by default FILE with the ending .html, and to
standard output for -. Of a journal it has the last COUNT lines, by default ${LINES}.
`,
  options: { output: { type: 'string', short: 'o' }, last: { type: 'string' } },
  async run({ values, positionals }, terminal) {
    const [file, ...more] = positionals;
    if (file === undefined || file === '' || more.length > 0) {
      throw new UsageError('takes one file: a snapshot or a journal');
    }
    const output = fileOption({ values }, 'output') ?? pageOf(file);
    if (output !== STANDARD_STREAM && isSameFile(output, file === STANDARD_STREAM ? '/dev/stdin' : file)) {
      throw new UsageError(`would write the page over ${file}: name another --output`);
    }
    const last = linesOption(values['last']);
    const title = file === STANDARD_STREAM ? 'standard input' : basename(file);
    const recording = await readRecording(file, last);
    save(output, await pageHtml({ title, ...recording }), terminal);
    const { leftOut = 0 } = recording.history ?? {};
    if (leftOut > 0) {
      const all = leftOut + last + 1;
      const says = `${title} has ${all} lines: the page leaves out the first ${leftOut}. --last ${all} shows all`;
      terminal.stderr.line(says);
    }
    if (output !== STANDARD_STREAM) terminal.stdout.line(`${output} is written: open it in a browser`);
    return 0;
  },
};

/** @throws {UsageError} for what is not a number of lines */
function linesOption(text: Invocation['values'][string]): number {
  if (text === undefined) return LINES;
  const count = typeof text === 'string' && /^[1-9]\d*$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(count)) return count;
  throw new UsageError('--last takes a number of lines, 1 or more');
}

/** Where the page of a file goes when nothing else is said. */
function pageOf(file: string): string {
  return file === STANDARD_STREAM ? STANDARD_STREAM : `${file.replace(/\.(jsonl?|ndjson|txt)$/, '')}.html`;
}
