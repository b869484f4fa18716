/**
 * A driver in the guest for an NVMe controller.
 *
 * It has one pair of queues for administration and one for blocks, in guest RAM, each with an MSI-X vector. It reads a
 * completion queue only after an interrupt. All addresses for the controller (of queues, in PRP entries) are
 * guest-physical: the IOMMU maps them.
 */
import type { GuestMemory } from 'peerdma';
import { GuestBar, type GuestMmio } from '../guest/bar.ts';
import type { Firmware, GuestFunction } from '../guest/firmware.ts';
import * as commands from './nvme/commands.ts';
import { type NvmeController, type NvmeNamespace, controllerFrom, namespaceFrom } from './nvme/identity.ts';
import { Msix } from './nvme/msix.ts';
import { QueuePair } from './nvme/queue-pair.ts';
import { NvmeRegisters } from './nvme/registers.ts';

/** The BAR with the controller's registers. */
const REGISTERS = 0;

/** Numbers of the queue pairs. Each uses the vector of its number. */
const ADMIN = 0;
const BLOCKS = 1;

/** Entries of each queue, if the controller supports so many: few, so that they wrap around soon. */
const ENTRIES = 16;

const NAMESPACE = 1;

/** A function as a driver in the guest accesses it, and its interrupts. An {@link AssignedDevice} has both. */
export interface NvmeFunction extends GuestFunction, GuestMmio {
  readonly interrupts: {
    vector(kind: 'msix', index: number): { onInterrupt(callback: ((count: bigint) => void) | undefined): void };
  };
}

export interface NvmeOptions {
  readonly device: NvmeFunction;
  /** The firmware, which has placed the BARs and enabled the device. */
  readonly firmware: Firmware;
  readonly memory: GuestMemory;
  /** {@link Nvme.WORKSPACE} bytes of guest RAM for queues, at the start of a page. */
  readonly workspace: bigint;
}

/** An NVMe controller with its first namespace. */
export class Nvme {
  /** Bytes of guest RAM that the driver uses itself. */
  static readonly WORKSPACE: bigint = 2n * QueuePair.LENGTH + commands.PAGE;
  readonly #memory: GuestMemory;
  readonly #registers: NvmeRegisters;
  readonly #device: NvmeFunction;
  readonly #msix: Msix;
  readonly #admin: QueuePair;
  readonly #blocks: QueuePair;
  /** The page that Identify fills. */
  readonly #page: bigint;
  #blockLength = 0;
  #closing: Promise<void> | undefined;

  private constructor({ device, firmware, memory, workspace }: NvmeOptions) {
    this.#device = device;
    this.#memory = memory;
    this.#registers = new NvmeRegisters(new GuestBar(device, firmware.addressOf(REGISTERS)));
    this.#msix = new Msix(device, firmware);
    const entries = Math.min(ENTRIES, this.#registers.maximumQueueEntries);
    const queues = (id: number) =>
      new QueuePair(memory, this.#registers, id, workspace + BigInt(id) * QueuePair.LENGTH, entries);
    this.#admin = queues(ADMIN);
    this.#blocks = queues(BLOCKS);
    this.#page = workspace + 2n * QueuePair.LENGTH;
  }

  /**
   * Resets a controller and prepares it for use.
   *
   * @throws {Error} if it does not get ready, rejects a command, or is not supported by this driver; it is off then
   */
  static async open(options: NvmeOptions): Promise<Nvme> {
    const nvme = new Nvme(options);
    try {
      await nvme.#start();
      return nvme;
    } catch (error) {
      await nvme.#stop();
      throw error;
    }
  }

  /** The version of the specification that the controller follows. */
  get version(): string {
    return this.#registers.version;
  }

  /** The number of interrupts for each queue pair. */
  get interrupts(): { readonly admin: bigint; readonly blocks: bigint } {
    return { admin: this.#admin.interrupts, blocks: this.#blocks.interrupts };
  }

  /** Vectors, by which a guest can mask the controller's interrupts. */
  get msix(): Msix {
    return this.#msix;
  }

  /** Identity of the controller and of its first namespace. */
  async identify(): Promise<{ controller: NvmeController; namespace: NvmeNamespace }> {
    const controller = controllerFrom(await this.#ask(commands.identifyController(this.#page)));
    const namespace = namespaceFrom(NAMESPACE, await this.#ask(commands.identifyNamespace(NAMESPACE, this.#page)));
    return { controller, namespace };
  }

  /**
   * Reads blocks into guest memory.
   *
   * @param block the first
   * @param count at most the blocks of one page, or of two adjacent ones
   * @param gpa the destination; a multiple of 4
   * @throws {NvmeCommandError} if the controller rejects it, such as blocks past the end
   */
  async read(block: bigint, count: number, gpa: bigint): Promise<void> {
    await this.#blocks.submit(commands.read(this.#transfer(block, count, gpa)));
  }

  /** Writes blocks from guest memory; see {@link Nvme.read}. */
  async write(block: bigint, count: number, gpa: bigint): Promise<void> {
    await this.#blocks.submit(commands.write(this.#transfer(block, count, gpa)));
  }

  /** Shuts the controller down and turns it off. No command may be in progress. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #start(): Promise<void> {
    await this.#registers.disable();
    for (const queue of [this.#admin, this.#blocks]) {
      this.#vector(queue).onInterrupt((count) => queue.interrupted(count));
    }
    await this.#msix.enable(2);
    await this.#registers.enable(this.#admin.submission, this.#admin.completion, this.#admin.entries);
    this.#blockLength = (await this.identify()).namespace.blockLength;
    const { id, completion, submission, entries } = this.#blocks;
    await this.#admin.submit(commands.oneQueuePair());
    await this.#admin.submit(commands.createCompletionQueue(id, completion, entries, BLOCKS));
    await this.#admin.submit(commands.createSubmissionQueue(id, submission, entries));
  }

  async #shutDown(): Promise<void> {
    try {
      await this.#admin.submit(commands.deleteSubmissionQueue(BLOCKS));
      await this.#admin.submit(commands.deleteCompletionQueue(BLOCKS));
      await this.#registers.shutDown();
    } finally {
      await this.#stop();
    }
  }

  /** Turns it off in any state. */
  async #stop(): Promise<void> {
    try {
      await this.#registers.disable();
    } finally {
      for (const queue of [this.#admin, this.#blocks]) {
        this.#vector(queue).onInterrupt(undefined);
        queue.abandon();
      }
      await this.#msix.disable();
    }
  }

  #vector({ id }: QueuePair): ReturnType<NvmeFunction['interrupts']['vector']> {
    return this.#device.interrupts.vector('msix', id);
  }

  /** Runs a command that fills a page. */
  async #ask(command: commands.Command): Promise<Uint8Array> {
    await this.#admin.submit(command);
    return this.#memory.read(this.#page, Number(commands.PAGE));
  }

  #transfer(block: bigint, count: number, gpa: bigint): commands.Transfer {
    return { namespace: NAMESPACE, block, count, length: count * this.#blockLength, gpa };
  }
}
