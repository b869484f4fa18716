/**
 * Standard output and standard error of a command. Commands write through this class alone, so all text is escaped.
 */
import { randomUUID } from 'node:crypto';
import { styleText } from 'node:util';
import { asError } from '../errors.ts';
import { printable } from '../printable.ts';
import { jsonPieces } from './json-text.ts';
import type { Paint } from './lines.ts';

/** Error codes of a stream whose reader has stopped early, as `head` does. */
const READER_GONE_CODES = ['EPIPE', 'ERR_STREAM_DESTROYED', 'ERR_STREAM_WRITE_AFTER_END'];

/** Writes lines, JSON and documents to a stream. */
export class Output {
  readonly #stream: NodeJS.WritableStream;
  /** Precedes the styles of {@link Output.paint}. No input can contain it, so no input can style the output. */
  readonly #mark = randomUUID();
  readonly #writes: Promise<void>[] = [];
  #failure: NodeJS.ErrnoException | undefined;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Each write reports its own error. Without a listener an `error` event would end the process.
    stream.on('error', () => {});
  }

  /** Styles a part of a text for {@link Output.line}. Does nothing if the stream is not a terminal. */
  readonly paint: Paint = (style, text) => {
    const [before = '', after = ''] = styleText(style, '\0', { stream: this.#stream }).split('\0');
    return before === '' ? text : `${this.#mark}${before}${text}${this.#mark}${after}`;
  };

  /** Writes a line. Replaces control characters, line ends included, by `?`. */
  line(text: string): void {
    this.lines([text]);
  }

  /** Writes lines, each like {@link Output.line}. */
  lines(texts: readonly string[]): void {
    this.#write(texts.map((text) => `${this.#printable(text)}\n`).join(''));
  }

  /**
   * Writes a value as indented JSON, with bigints as hexadecimal strings and control characters escaped.
   *
   * Creates each piece after the piece before it is written, so a slow reader costs no memory.
   */
  async json(value: unknown): Promise<void> {
    for (const piece of jsonPieces(value)) {
      await this.#write(piece);
      if (this.#failure !== undefined) return;
    }
    await this.#write('\n');
  }

  /** Writes a document, such as a page: like lines, but keeps tabs. */
  document(text: string): void {
    const lines = text.split('\n').map((line) => line.split('\t').map(printable).join('\t'));
    this.#write(lines.join('\n'));
  }

  /**
   * Waits until all text is written.
   *
   * @returns the error of a failed write; `undefined` if the writes succeeded or the reader stopped early
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
      const end = part.indexOf('m') + 1; // end of the escape sequence of `styleText`
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
