/**
 * Records the changes of guest memory in a file, for `peerdma view` and for later analysis.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { closeSync, openSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readable } from '../arguments.ts';
import type { DmaEvent, MemorySettledEvent } from '../dma/events.ts';
import { asError, PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { type BarEvent, barSnapshot } from '../pci/bar-status.ts';
import { valueText } from '../value-text.ts';
import { type State, compare, deltaOf, stateOf } from './compare.ts';
import type { JournalError, JournalLine, JournalStart } from './lines.ts';
import { barText, changeText } from './line-text.ts';

/**
 * A `URL` of the scheme `file:`. The class itself is not named here: it needs the types of Node or of a browser.
 */
export interface FileUrl {
  /** The URL, such as `file:///tmp/journal.jsonl`. */
  readonly href: string;
}

/**
 * Records all changes of a guest memory from now on, as one line of JSON each.
 *
 * The first line is a snapshot. Each other line has the difference, the error if the change failed, and the map and
 * unmap operations of the DMA targets. {@link readJournal} rebuilds the states; `peerdma view` displays them.
 *
 * A line is written before the next change begins, so the file has it if the process dies. Recording ends when the
 * guest memory is closed.
 *
 * @param file is created, or truncated
 * @throws {PeerDmaError} `ERR_SYSTEM` with errno when the file cannot be written; `ERR_CLOSED` when the guest memory is
 *   closed; `ERR_INVALID_ARGUMENT` when `file` is not a path or a `file:` URL
 */
export function recordJournal(memory: GuestMemory, file: string | FileUrl): Journal {
  const space = guestAddressSpaceOf(memory);
  if (space.closed)
    throw new PeerDmaError(
      'ERR_CLOSED',
      'the journal: recording failed: the guest memory is closed. Record it before GuestMemory.close().',
    );
  const path = pathOf(file);
  const fd = attempt('open', () => openSync(path, 'w'));
  try {
    const start: JournalStart = { journal: 'peerdma', version: 1, time: now(), snapshot: memory.inspect() };
    writeLine(fd, start);
    return new Journal(memory, stateOf(space), fd);
  } catch (error) {
    closeSync(fd);
    throw error instanceof PeerDmaError ? error : systemError('write', error);
  }
}

/** A journal that is being written. */
export class Journal {
  readonly #memory: GuestMemory;
  #state: State;
  #fd: number | undefined;
  #failure: PeerDmaError | undefined;
  /** Operations of the targets since the last line. */
  #dma: string[] = [];
  readonly #listeners: readonly (readonly [string, (message: unknown) => void])[];

  /** @internal */
  constructor(memory: GuestMemory, state: State, fd: number) {
    this.#memory = memory;
    this.#state = state;
    this.#fd = fd;
    this.#listeners = [
      ['peerdma:dma.map', (message) => this.#noteDma('map', message as DmaEvent)],
      ['peerdma:dma.unmap', (message) => this.#noteDma('unmap', message as DmaEvent)],
      ['peerdma:memory.settled', (message) => this.#noteSettled(message as MemorySettledEvent)],
      ['peerdma:pci.bar', (message) => this.#noteBar(message as BarEvent)],
    ];
    for (const [name, listener] of this.#listeners) subscribe(name, listener);
  }

  /**
   * The error that ended recording early: the file could not be written. The lines before it are valid. Guest memory
   * works on.
   */
  get failure(): PeerDmaError | undefined {
    return this.#failure;
  }

  /** Ends recording. Idempotent. */
  close(): void {
    this.#closeFile();
    for (const [name, listener] of this.#listeners) unsubscribe(name, listener);
  }

  /** As {@link Journal.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #noteDma(what: 'map' | 'unmap', { memory, target, range }: DmaEvent): void {
    if (memory === this.#memory.id && this.#fd !== undefined) this.#dma.push(`${what} ${target} ${range}`);
  }

  #noteSettled({ memory, action, error }: MemorySettledEvent): void {
    if (memory !== this.#memory.id) return;
    this.#write(() => {
      const before = this.#state;
      this.#state = stateOf(guestAddressSpaceOf(this.#memory));
      const comparison = compare(before, this.#state);
      const delta = deltaOf(comparison, before);
      const dma = this.#dma;
      this.#dma = [];
      if (delta === undefined && error === undefined && dma.length === 0) return undefined;
      return {
        time: now(),
        text: changeText(action, comparison, error),
        action,
        ...(error === undefined ? {} : { error: plainError(error) }),
        ...(dma.length === 0 ? {} : { dma }),
        ...(delta === undefined ? {} : { delta }),
      };
    });
    if (action === 'close' && error === undefined) this.#end();
  }

  #noteBar({ memory, bdf, bar }: BarEvent): void {
    if (memory !== this.#memory.id) return;
    const [trapped] = bar.trapped;
    const text = barText(bdf, bar.bar, bar.range, trapped?.reason);
    this.#write(() => ({ time: now(), text, bar: { bdf, ...barSnapshot(bar) } }));
  }

  /** Ends recording from within a listener. Unsubscribes later: the list of listeners is being iterated. */
  #end(): void {
    this.#closeFile();
    queueMicrotask(() => this.close());
  }

  #closeFile(): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    this.#dma = [];
    try {
      closeSync(fd);
    } catch (error) {
      this.#failure ??= systemError('close', error);
    }
  }

  /** Writes a line, if `make` returns one. Errors end recording; they never reach the change that is recorded. */
  #write(make: () => JournalLine | undefined): void {
    if (this.#fd === undefined) return;
    try {
      const line = make();
      if (line !== undefined) writeLine(this.#fd, line);
    } catch (error) {
      this.#failure = error instanceof PeerDmaError ? error : systemError('write', error);
      this.#end();
    }
  }
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
function pathOf(file: string | FileUrl): string {
  return readable('the path of a journal', () => {
    if (typeof file === 'string') return file;
    if (typeof file?.href === 'string') return fileURLToPath(file.href);
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the journal: expected a path or a URL, not ${valueText(file)}`);
  });
}

function now(): string {
  return new Date().toISOString();
}

function plainError(thrown: unknown): JournalError {
  const { message } = asError(thrown);
  return thrown instanceof PeerDmaError ? { code: thrown.code, message } : { message };
}

function writeLine(fd: number, line: JournalStart | JournalLine): void {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  for (let done = 0; done < bytes.length;) done += attempt('write', () => writeSync(fd, bytes, done));
}

function attempt<T>(syscall: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw systemError(syscall, error);
  }
}

function systemError(syscall: string, thrown: unknown): PeerDmaError {
  const error: NodeJS.ErrnoException = asError(thrown);
  if (error.name === 'TypeError') {
    return new PeerDmaError('ERR_INVALID_ARGUMENT', `the journal: ${syscall} failed: ${error.message}`);
  }
  return new PeerDmaError('ERR_SYSTEM', `the journal: ${syscall} failed: ${error.message}`, {
    errno: error.code,
    syscall,
    cause: thrown,
  });
}
