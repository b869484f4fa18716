/**
 * A submission queue and the completion queue of its commands, both in guest RAM.
 */
import type { GuestMemory } from 'peerdma';
import {
  COMPLETION_ENTRY,
  type Command,
  type Completion,
  NvmeCommandError,
  PAGE,
  SUBMISSION_ENTRY,
  decode,
  encode,
} from './commands.ts';
import type { NvmeRegisters } from './registers.ts';

/** Timeout of a command in milliseconds. Commands take a fraction of it. */
const PATIENCE = 20_000;

interface Waiting {
  readonly command: Command;
  readonly done: (completion: Completion) => void;
  readonly failed: (error: Error) => void;
}

export class QueuePair {
  /** Length in bytes: a page for the submission queue, followed by one for the completion queue. */
  static readonly LENGTH: bigint = 2n * PAGE;
  readonly id: number;
  readonly entries: number;
  readonly submission: bigint;
  readonly completion: bigint;
  /** The number of its interrupts. */
  #interrupts = 0n;
  readonly #memory: GuestMemory;
  readonly #registers: NvmeRegisters;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #tail = 0;
  #head = 0;
  /** The phase of new entries. */
  #phase = true;

  /** @param gpa {@link QueuePair.LENGTH} bytes of guest RAM at the start of a page, which are cleared */
  constructor(memory: GuestMemory, registers: NvmeRegisters, id: number, gpa: bigint, entries: number) {
    this.#memory = memory;
    this.#registers = registers;
    this.id = id;
    this.entries = entries;
    this.submission = gpa;
    this.completion = gpa + PAGE;
    memory.write(gpa, new Uint8Array(Number(QueuePair.LENGTH)));
  }

  get interrupts(): bigint {
    return this.#interrupts;
  }

  /**
   * Submits a command. Only {@link QueuePair.interrupted} fulfils the promise.
   *
   * @throws {NvmeCommandError} if the controller rejects it
   * @throws {Error} if no interrupt arrives, or the queue is full
   */
  submit(command: Command): Promise<void> {
    return new Promise((resolve, reject) => {
      // One entry stays free: a queue whose tail is at its head is empty.
      if (this.#waiting.size === this.entries - 1)
        throw new Error(`${this.#waiting.size} commands are under way already`);
      const id = this.#newId();
      this.#memory.write(this.submission + BigInt(this.#tail * SUBMISSION_ENTRY), encode(command, id));
      const timer = setTimeout(
        () => reject(new Error(`no interrupt came for command 0x${command.opcode.toString(16)} of queue ${this.id}`)),
        PATIENCE,
      );
      this.#waiting.set(id, {
        command,
        done: (completion) => {
          clearTimeout(timer);
          if (completion.statusType === 0 && completion.status === 0) resolve();
          else reject(new NvmeCommandError(command, completion));
        },
        failed: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#tail = (this.#tail + 1) % this.entries;
      this.#registers.ringTail(this.id, this.#tail);
    });
  }

  /** Handles an interrupt: takes the new completions. */
  interrupted(count: bigint): void {
    this.#interrupts += count;
    const head = this.#head;
    for (let entry = this.#take(); entry !== undefined; entry = this.#take()) {
      this.#waiting.get(entry.id)?.done(entry);
      this.#waiting.delete(entry.id);
    }
    if (this.#head !== head) this.#registers.ringHead(this.id, this.#head);
  }

  /** Fails the commands in progress: the controller is off, and will not complete them. */
  abandon(): void {
    for (const { command, failed } of this.#waiting.values()) {
      failed(new Error(`the controller was turned off before command 0x${command.opcode.toString(16)} was done`));
    }
    this.#waiting.clear();
  }

  #take(): Completion | undefined {
    const at = this.completion + BigInt(this.#head * COMPLETION_ENTRY);
    // Two reads: the controller may be writing the entry. It writes the phase last, so the rest is complete once the
    // phase is new.
    if (decode(this.#memory.read(at, COMPLETION_ENTRY)).phase !== this.#phase) return undefined;
    const entry = decode(this.#memory.read(at, COMPLETION_ENTRY));
    this.#head = (this.#head + 1) % this.entries;
    if (this.#head === 0) this.#phase = !this.#phase;
    return entry;
  }

  #newId(): number {
    do this.#nextId = (this.#nextId + 1) & 0x7fff;
    while (this.#waiting.has(this.#nextId));
    return this.#nextId;
  }
}
