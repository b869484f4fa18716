/**
 * Reads a journal: rebuilds the state of guest memory after each of its lines. Holds one state at a time.
 */
import { constants } from 'node:buffer';
import { readable, requireBytes } from '../arguments.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { MemorySnapshot } from '../guest/inspect.ts';
import { checkLine, checkSnapshot, checkStart } from './check-lines.ts';
import { applyDelta } from './delta.ts';
import type { JournalLine } from './lines.ts';

/** Editors on Windows write it at the start of UTF-8 files. `JSON.parse` rejects it. */
const BYTE_ORDER_MARK = '\ufeff';

/** Limit of the bytes that are decoded at once. */
const MAX_DECODED = 1 << 26;

/** One line of a journal, with the state of guest memory after it. */
export interface JournalEntry extends JournalLine {
  /** The state of guest memory after the line. */
  readonly snapshot: MemorySnapshot;
}

/**
 * Iterates over the lines of a journal, each with the state of guest memory after it.
 *
 * The first entry has the state when recording began. The iterator rebuilds one state at a time, so the memory it uses
 * does not depend on the length of the journal. It leaves out a truncated last line, which remains when the process
 * ends while it writes. A last line that lacks only its line end is complete. It skips blank lines at the end, and a
 * byte order mark at the start.
 *
 * @param journal text that {@link recordJournal} has written
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, while iterating, when the text is not a journal: the message names the
 *   line and the field
 */
export function readJournal(journal: string): Generator<JournalEntry, void, undefined>;
/**
 * Iterates over the lines of a journal that a stream reads: `readJournal(createReadStream(file))`.
 *
 * Holds the current piece and the current line in memory.
 *
 * @param journal text that {@link recordJournal} has written, in pieces of text or of UTF-8 bytes
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, while iterating, when the text is not a journal
 * @throws the error of the stream, if the stream fails
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
  for (let at = 0; at < bytes.length; at += MAX_DECODED) {
    yield decoder.decode(bytes.subarray(at, at + MAX_DECODED), { stream: true });
  }
}

/** Reads a journal from pieces of text of any length. @internal */
export class JournalReader {
  readonly #limit: number;
  /** Pieces of the current line, whose end has not been read yet. */
  #row: string[] = [];
  /** Number of characters in the pieces. */
  #length = 0;
  /** Number of complete lines, without the blank lines that follow them. */
  #lines = 0;
  #blankLines = 0;
  #hasStarted = false;
  #isCut = false;
  #snapshot: MemorySnapshot | undefined;

  /** @param limit characters of the longest line. Default: the length limit of a string */
  constructor(limit: number = constants.MAX_STRING_LENGTH) {
    this.#limit = limit;
  }

  /** Returns the entries of the lines that a piece completes. Iterate to the end before you add the next piece. */
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
   * Returns the entry of a last line without a line end, unless that line is truncated. Call it after the last piece.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the journal has no line
   */
  *end(): Generator<JournalEntry, void, undefined> {
    const row = this.#takeRow();
    if (this.#lines > 0 && isBlank(row)) return;
    this.#isCut = this.#lines > 0 && !isJson(row);
    if (!this.#isCut) yield this.#entry(row);
  }

  /** Whether the last line is truncated. Valid after {@link JournalReader.end}. */
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

  /** Checks a line and applies it to the state before. */
  #entry(row: string): JournalEntry {
    const number = ++this.#lines;
    try {
      // Blank lines are allowed at the end only. If another line follows, the first blank line is the invalid one.
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

/** Rejects a length that exceeds the limit of a string. @param length characters @internal */
export function requireString(length: number, what: string, limit: number = constants.MAX_STRING_LENGTH): void {
  if (length <= limit) return;
  const text = `${what}: expected at most ${limit} characters, the limit of a string`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/** Whether a text begins like a journal, not like a snapshot. @internal */
export function isJournal(text: string): boolean {
  return /^\s*\{\s*"journal"/.test(text);
}

/**
 * Parses a snapshot in JSON.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the text is not a snapshot: the message names the field
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
