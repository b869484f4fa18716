/** The migration of a simulated device, with the states and rules of VFIO. */
import { readOptions, requireBytes } from '../../../arguments.ts';
import { PeerDmaError } from '../../../errors.ts';
import { valueText } from '../../../value-text.ts';
import type {
  DeviceMigration,
  MigrationState,
  MigrationSupport,
  PreCopyData,
  SaveOptions,
} from '../../migration/device-migration.ts';
import { SAVING, statePath } from '../../migration/state-path.ts';
import type { SimulatedMigrationOptions } from '../options.ts';
import type { MemoryPart, StatePart } from './device-parts.ts';
import { SimulatedDmaLog } from './dma-log.ts';
import type { DmaQueue } from './dma-queue.ts';
import { RestoredState } from './restored-state.ts';
import { SavedState } from './saved-state.ts';

/** The states in which a device does DMA. */
const ACTIVE: ReadonlySet<MigrationState> = new Set(['running', 'pre-copy']);
/** The states in which a device accepts DMA of others. */
const ACCEPTING: ReadonlySet<MigrationState> = new Set(['running', 'pre-copy', 'running-p2p', 'pre-copy-p2p']);

/** The device that migrates. @internal */
export interface MigratedDevice {
  readonly bdf: string;
  /** Equal in devices that can take each other's data. */
  readonly identity: Uint8Array;
  readonly memory: readonly MemoryPart[];
  readonly parts: readonly StatePart[];
  readonly queue: DmaQueue;
  /** @throws {PeerDmaError} `ERR_CLOSED` */
  requireOpen(): void;
}

/** @internal */
export class SimulatedMigration implements DeviceMigration {
  readonly supports: MigrationSupport;
  readonly dmaLog: SimulatedDmaLog | undefined;
  readonly #device: MigratedDevice;
  #state: MigrationState = 'running';
  #saved: SavedState | undefined;
  #restored: RestoredState | undefined;
  /** Number of resets. A change of state that a reset interrupts ends. */
  #resets = 0;
  /** The last change of state: they are made one at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(device: MigratedDevice, { preCopy = true, p2p = true, dmaLog = true }: SimulatedMigrationOptions) {
    this.#device = device;
    this.supports = { stopCopy: true, preCopy, p2p };
    this.dmaLog = dmaLog ? new SimulatedDmaLog(device.bdf) : undefined;
  }

  get state(): MigrationState {
    this.#device.requireOpen();
    return this.#state;
  }

  /** Whether the device does DMA. */
  get isActive(): boolean {
    return ACTIVE.has(this.#state);
  }

  /** Whether the device accepts DMA of other devices. */
  get isAccepting(): boolean {
    return ACCEPTING.has(this.#state);
  }

  async setState(state: MigrationState): Promise<void> {
    const change = this.#turn.then(() => this.#change(state));
    this.#turn = change.catch(() => {});
    await change;
  }

  estimateSize(): bigint {
    this.#device.requireOpen();
    return this.#device.memory.reduce((sum, { length }) => sum + length, 0n);
  }

  get preCopyData(): PreCopyData {
    const saved = this.#saved;
    if (saved === undefined || this.#state === 'stop-copy') throw this.#wrongState('reading the amount of its data');
    return { initial: saved.initial, dirty: saved.dirty };
  }

  async *save(options: SaveOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const buffer = readBuffer(options);
    const saved = this.#saved;
    if (saved === undefined) throw this.#wrongState('reading its data');
    for (const chunk of saved.chunks(this.#state !== 'stop-copy', buffer)) {
      yield chunk;
      if (this.#saved !== saved) throw this.#wrongState('reading its data');
    }
  }

  async load(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) {
      this.#device.requireOpen();
      if (this.#restored === undefined) throw this.#wrongState('writing its data');
      this.#restored.take(requireBytes(chunk));
    }
  }

  /** Ends a session, and returns to `running`, as a reset does. */
  reset(): void {
    this.#resets++;
    this.#saved = undefined;
    this.#restored = undefined;
    this.#state = 'running';
    this.#device.queue.resume();
  }

  async #change(to: MigrationState): Promise<void> {
    this.#device.requireOpen();
    const path = statePath(this.#state, to, this.supports);
    if (path === undefined) {
      const text = `${this.#device.bdf}: changing its migration state from ${this.#state} to ${valueText(to)} failed`;
      throw this.#error(`${text}: there is no such transition (EINVAL). See DeviceMigration.`);
    }
    const resets = this.#resets;
    for (const next of path) {
      if (!ACTIVE.has(next)) await this.#device.queue.pause(); // completes the DMA in flight
      if (resets !== this.#resets) {
        this.#device.queue.resume();
        const text = `${this.#device.bdf}: changing its migration state to ${to} failed: it was reset. Try again.`;
        throw this.#error(text);
      }
      this.#step(next);
    }
  }

  #step(next: MigrationState): void {
    const { bdf, identity, memory, parts, queue } = this.#device;
    if (this.#state === 'resuming' && this.#restored?.apply() === false) {
      const text = `${bdf}: changing its migration state from resuming to stop failed: its data is incomplete`;
      throw this.#error(`${text} (EINVAL). Write the rest, or reset it.`);
    }
    this.#state = next;
    this.#restored = next === 'resuming' ? new RestoredState(bdf, identity, memory, parts) : undefined;
    if (!SAVING.has(next)) this.#saved = undefined;
    else this.#saved ??= new SavedState(identity, memory, parts, next !== 'stop-copy');
    if (next === 'stop-copy') this.#saved?.stop();
    if (ACTIVE.has(next)) queue.resume();
  }

  #wrongState(operation: string): PeerDmaError {
    const text = `${this.#device.bdf}: ${operation} failed: it is in the migration state ${this.#state}`;
    return this.#error(`${text}. Change its state first.`);
  }

  #error(text: string): PeerDmaError {
    return new PeerDmaError('ERR_MIGRATION_STATE', text, { bdf: this.#device.bdf });
  }
}

function readBuffer(options: SaveOptions): Uint8Array | undefined {
  const { buffer } = readOptions(options, ['buffer']);
  if (buffer === undefined || requireBytes(buffer).length > 0) return buffer;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'the buffer for migration data has no bytes. Pass a longer one.');
}
