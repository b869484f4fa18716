/**
 * Reads what a journal recorded: the state of guest memory after each of its lines. One state is held at a time.
 */
import { constants } from 'node:buffer';
import { readable, requireBytes } from '../arguments.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { MemorySnapshot } from '../guest/inspect.ts';
import { checkLine, checkSnapshot, checkStart } from './check-lines.ts';
import { applyDelta } from './delta.ts';
import type { JournalLine } from './lines.ts';

/** Editors on Windows put it before UTF-8. `JSON.parse` rejects it. */
const BYTE_ORDER_MARK = '\ufeff';

/** Bytes that are decoded at once. */
const MOST_DECODED = 1 << 26;

/** One line of a journal, with guest memory as it was after it. */
export interface JournalEntry extends JournalLine {
  /** Guest memory after the line. */
  readonly snapshot: MemorySnapshot;
}

/**
 * Iterates over the lines of a journal with the state after each, the state it begins with first. Makes each state when
 * it is asked for, so a journal of any length takes the memory of one. Leaves out a last line that is cut: the process
 * ended while it was written. A last line that lacks only its line end is not cut. Skips blank lines at the end, and a
 * byte order mark at the start.
 *
 * @param journal all that {@link recordJournal} has written
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, while iterating, for what is not a journal: the message says which
 * line
 *   is wrong, and how
 */
export function readJournal(journal: string): Generator<JournalEntry, void, undefined>;
/**
 * As above, from a stream: `readJournal(createReadStream(file))`. Holds the piece and the line that are being read.
 *
 * @param journal what {@link recordJournal} has written, in pieces of text or of UTF-8
 * @throws {PeerDmaError} as above; whatever the stream throws
 */
export function readJournal(journal: AsyncIterable<string | Uint8Array>): AsyncGenerator<JournalEntry, void, undefined>;
export function readJournal(
  journal: string | AsyncIterable<string | Uint8Array>,
): Generator<JournalEntry, void, undefined> | AsyncGenerator<JournalEntry, void, undefined> {
  if (typeof journal === 'string') return entriesOfText(journal);
  if (typeof readable('a journal', () => journal?.[Symbol.asyncIterator]) === 'function')
    return entriesOfStream(journal);
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `a journal: expected a string, or a stream of strings or bytes, not ${valueText(journal)}`,
  );
}

function* entriesOfText(text: string): Generator<JournalEntry, void, undefined> {
  const reader = new JournalReader();
  yield* reader.add(text);
  yield* reader.end();
}

async function* entriesOfStream(
  stream: AsyncIterable<string | Uint8Array>,
): AsyncGenerator<JournalEntry, void, undefined> {
  const reader = new JournalReader();
  const decoder = new TextDecoder();
  for await (const piece of stream) {
    for (const text of typeof piece === 'string' ? [piece] : decoded(piece, decoder)) yield* reader.add(text);
  }
  yield* reader.end();
}

/** Text of bytes. Bytes in one buffer may be more than a string can have characters. */
function* decoded(piece: Uint8Array, decoder: InstanceType<typeof TextDecoder>): Generator<string, void, undefined> {
  const bytes = requireBytes(piece);
  for (let at = 0; at < bytes.length; at += MOST_DECODED) {
    yield decoder.decode(bytes.subarray(at, at + MOST_DECODED), { stream: true });
  }
}

/** Reads a journal that comes in pieces of text, of any length. @internal */
export class JournalReader {
  readonly #limit: number;
  /** Pieces of a line whose end has not come yet. */
  #row: string[] = [];
  /** Characters of them. */
  #length = 0;
  /** Lines before, without the blank ones that follow them. */
  #lines = 0;
  #blankLines = 0;
  #hasStarted = false;
  #isCut = false;
  #snapshot: MemorySnapshot | undefined;

  /** @param limit the most characters of a line. Default: those of the longest string */
  constructor(limit: number = constants.MAX_STRING_LENGTH) {
    this.#limit = limit;
  }

  /** Entries of the lines that a piece completes. To be iterated to its end before the next piece. */
  *add(piece: string): Generator<JournalEntry, void, undefined> {
    let from = this.#hasStarted || !piece.startsWith(BYTE_ORDER_MARK) ? 0 : BYTE_ORDER_MARK.length;
    this.#hasStarted ||= piece !== '';
    for (let end = piece.indexOf('\n'); end !== -1; end = piece.indexOf('\n', from)) {
      this.#keep(piece.slice(from, end));
      from = end + 1;
      const row = this.#takeRow();
      if (isBlank(row)) this.#blankLines += 1;
      else yield this.#entry(row);
    }
    if (from < piece.length) this.#keep(piece.slice(from));
  }

  /**
   * The entry of a last line without a line end, unless it is cut. To be called after the last piece.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when there was no line
   */
  *end(): Generator<JournalEntry, void, undefined> {
    const row = this.#takeRow();
    if (this.#lines > 0 && isBlank(row)) return;
    this.#isCut = this.#lines > 0 && !isJson(row);
    if (!this.#isCut) yield this.#entry(row);
  }

  /** Whether the last line is cut. Known after {@link JournalReader.end}. */
  get isCut(): boolean {
    return this.#isCut;
  }

  #takeRow(): string {
    const row = this.#row.join('');
    this.#row = [];
    this.#length = 0;
    return row;
  }

  #keep(piece: string): void {
    this.#length += piece.length;
    requireString(this.#length, `line ${this.#lines + this.#blankLines + 1} of the journal`, this.#limit);
    this.#row.push(piece);
  }

  /** Checks a line, also that it fits those before it. */
  #entry(row: string): JournalEntry {
    const number = ++this.#lines;
    try {
      // Blank lines are skipped at the end only. The first one before a line is the line that is wrong.
      if (this.#blankLines > 0) parse('');
      const before = this.#snapshot;
      if (before === undefined) {
        const { time, snapshot } = checkStart(parse(row), '');
        this.#snapshot = snapshot;
        return { time, text: 'Recording begins.', snapshot };
      }
      const line = checkLine(parse(row), '');
      const snapshot = line.delta === undefined ? before : applyDelta(before, line.delta);
      this.#snapshot = snapshot;
      return { ...line, snapshot };
    } catch (error) {
      const message = `line ${number} of the journal: ${asError(error).message}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', message, { cause: error });
    }
  }
}

/** Checks that text in pieces can be one string. @param length characters @internal */
export function requireString(length: number, what: string, limit: number = constants.MAX_STRING_LENGTH): void {
  if (length <= limit) return;
  const text = `${what}: expected at most ${limit} characters, the most that a string can have`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/** Whether a text begins as a journal does, rather than a snapshot. @internal */
export function isJournal(text: string): boolean {
  return /^\s*\{\s*"journal"/.test(text);
}

/**
 * A snapshot from JSON.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for other text: the message names the field that is wrong
 * @internal
 */
export function parseSnapshot(text: string): MemorySnapshot {
  const json = text.startsWith(BYTE_ORDER_MARK) ? text.slice(BYTE_ORDER_MARK.length) : text;
  return checkSnapshot(parse(json, 'the snapshot: '), 'the snapshot');
}

function isBlank(text: string): boolean {
  return !/\S/.test(text);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function parse(text: string, object = ''): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${object}expected JSON: ${asError(error).message}`, {
      cause: error,
    });
  }
}
