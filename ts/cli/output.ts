/**
 * Standard output and standard error of a command: the only way to either, so no text gets to a terminal unescaped.
 */
import { randomUUID } from 'node:crypto';
import { styleText } from 'node:util';
import { asError } from '../errors.ts';
import { printable } from '../printable.ts';
import { jsonPieces } from './json-text.ts';
import type { Paint } from './lines.ts';

/** Errors of a stream whose reader has stopped early, as `head` does. */
const READER_GONE_CODES = ['EPIPE', 'ERR_STREAM_DESTROYED', 'ERR_STREAM_WRITE_AFTER_END'];

/** A stream that lines, JSON and documents are written to. */
export class Output {
  readonly #stream: NodeJS.WritableStream;
  /** Stands before the colours of {@link Output.paint}. No name can have it, so no name can have a colour. */
  readonly #mark = randomUUID();
  readonly #writes: Promise<void>[] = [];
  #failure: NodeJS.ErrnoException | undefined;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Each write reports its own error. A stream whose `error` event has no listener ends the process.
    stream.on('error', () => {});
  }

  /** Styles a part of a line that {@link Output.line} is to write. Does nothing where the stream is not a terminal. */
  readonly paint: Paint = (style, text) => {
    const [before = '', after = ''] = styleText(style, '\0', { stream: this.#stream }).split('\0');
    return before === '' ? text : `${this.#mark}${before}${text}${this.#mark}${after}`;
  };

  /** Writes a line: a character that a terminal would obey, such as a line end within the text, becomes `?`. */
  line(text: string): void {
    this.lines([text]);
  }

  /** Writes lines, each as {@link Output.line} does. */
  lines(texts: readonly string[]): void {
    this.#write(texts.map((text) => `${this.#printable(text)}\n`).join(''));
  }

  /**
   * Writes a value as indented JSON: bigints as hexadecimal strings, characters that a terminal would obey escaped. The
   * next piece is made when the one before it is written, so a slow reader costs no memory.
   */
  async json(value: unknown): Promise<void> {
    for (const piece of jsonPieces(value)) {
      await this.#write(piece);
      if (this.#failure !== undefined) return;
    }
    await this.#write('\n');
  }

  /** Writes a document, such as a page: as lines, but for tabs, which it keeps. */
  document(text: string): void {
    const lines = text.split('\n').map((line) => line.split('\t').map(printable).join('\t'));
    this.#write(lines.join('\n'));
  }

  /**
   * Waits until all is written.
   *
   * @returns why something could not be written; `undefined` also where the reader has stopped early
   */
  async finish(): Promise<Error | undefined> {
    await Promise.all(this.#writes);
    return this.#failure === undefined || READER_GONE_CODES.includes(this.#failure.code ?? '')
      ? undefined
      : this.#failure;
  }

  #printable(text: string): string {
    const [plain = '', ...styled] = text.split(this.#mark);
    const parts = styled.map((part) => {
      const end = part.indexOf('m') + 1; // of the sequence that `styleText` begins with
      return part.slice(0, end) + printable(part.slice(end));
    });
    return printable(plain) + parts.join('');
  }

  #write(text: string): Promise<void> {
    if (this.#failure !== undefined) return Promise.resolve();
    const written = new Promise<void>((resolve) => {
      this.#stream.write(text, (error) => {
        if (error) this.#failure ??= asError(error);
        resolve();
      });
    });
    this.#writes.push(written);
    return written;
  }
}
