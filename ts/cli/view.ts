/**
 * `peerdma view`: converts a snapshot or a journal to a page.
 */
import { basename } from 'node:path';
import { STANDARD_STREAM, fileOption, isSameFile } from './arguments.ts';
import { type Command, type Invocation, UsageError } from './command.ts';
import { save } from './save.ts';
import { viewPage } from './view/page.ts';
import { readRecording } from './view/recording.ts';

/** Default of --last. A page holds the state after each of its lines, so more lines make it slow. */
const DEFAULT_LINES = 10_000;

export const viewCommand: Command = {
  summary: 'converts a snapshot or a journal of guest memory to a page',
  usage: `peerdma view FILE [--output PAGE.html] [--last COUNT]

Writes a page that draws the memory map, the regions and the targets. The page is one file that loads nothing else.

  FILE                a snapshot (JSON of memory.inspect()), or a journal of recordJournal(memory, FILE);
                      - is standard input
  --output PAGE.html  the file to write; - is standard output. Default: FILE with the ending .html
  --last COUNT        the last lines of a journal that the page has. Default: ${DEFAULT_LINES}
`,
  options: { output: { type: 'string', short: 'o' }, last: { type: 'string' } },
  async run({ values, positionals }, terminal) {
    const [file, ...more] = positionals;
    if (file === undefined || file === '' || more.length > 0) {
      throw new UsageError('takes one file: a snapshot or a journal');
    }
    const output = fileOption({ values }, 'output') ?? defaultPage(file);
    if (output !== STANDARD_STREAM && isSameFile(output, file === STANDARD_STREAM ? '/dev/stdin' : file)) {
      throw new UsageError(`--output would overwrite ${file}: name another --output`);
    }
    const last = linesOption(values['last']);
    const title = file === STANDARD_STREAM ? 'standard input' : basename(file);
    const recording = await readRecording(file, last);
    save(output, viewPage(title, recording), terminal);
    const { leftOut = 0 } = recording.history ?? {};
    if (leftOut > 0) {
      const all = leftOut + last + 1;
      const remedy = `Use --last ${all} for all lines.`;
      terminal.stderr.line(`${title}: the page leaves out the first ${leftOut} of ${all} lines. ${remedy}`);
    }
    if (output !== STANDARD_STREAM) terminal.stdout.line(`wrote ${output}: open it in a browser`);
    return 0;
  },
};

/** @throws {UsageError} when the value is not a number of lines */
function linesOption(text: Invocation['values'][string]): number {
  if (text === undefined) return DEFAULT_LINES;
  const count = typeof text === 'string' && /^[1-9]\d*$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(count)) return count;
  throw new UsageError('--last takes a number of lines, 1 or more');
}

/** Returns the default path of the page of a file. */
function defaultPage(file: string): string {
  return file === STANDARD_STREAM ? STANDARD_STREAM : `${file.replace(/\.(jsonl?|ndjson|txt)$/, '')}.html`;
}
