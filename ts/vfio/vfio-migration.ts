/** The migration of a VFIO device. */
import type { NativeVfioDevice } from '#native';
import type { AddressRange } from '../address-range.ts';
import { requireBytes } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native, nativeAsync } from '../native-call.ts';
import { nativeWords } from '../native-words.ts';
import type {
  DeviceDmaLog,
  DeviceMigration,
  MigrationState,
  MigrationSupport,
  PreCopyData,
} from '../pci/migration/device-migration.ts';
import { valueText } from '../value-text.ts';

/** The states by the kernel's numbers (`enum vfio_device_mig_state`). */
const STATES: readonly MigrationState[] = [
  'error',
  'stop',
  'running',
  'stop-copy',
  'resuming',
  'running-p2p',
  'pre-copy',
  'pre-copy-p2p',
];

/** Bytes that are read at once. */
const CHUNK = 1 << 20;

/** @internal */
export class VfioMigration implements DeviceMigration {
  readonly supports: MigrationSupport;
  readonly dmaLog: DeviceDmaLog | undefined;
  readonly #bdf: string;
  readonly #device: NativeVfioDevice;

  private constructor(bdf: string, device: NativeVfioDevice, supports: MigrationSupport, hasLog: boolean) {
    this.#bdf = bdf;
    this.#device = device;
    this.supports = supports;
    this.dmaLog = hasLog ? new VfioDmaLog(bdf, device) : undefined;
  }

  /** Returns `undefined` if the device cannot migrate. */
  static of(bdf: string, device: NativeVfioDevice): VfioMigration | undefined {
    const support = native(() => device.migrationSupport(), { bdf });
    if (support === null) return undefined;
    const { preCopy, peerToPeer, dmaLog } = support;
    return new VfioMigration(bdf, device, { stopCopy: true, preCopy, p2p: peerToPeer }, dmaLog);
  }

  get state(): MigrationState {
    return STATES[native(() => this.#device.migrationState(), { bdf: this.#bdf })] ?? 'error';
  }

  async setState(state: MigrationState): Promise<void> {
    const number = STATES.indexOf(state);
    if (number < 0) {
      const text = `a migration state is one of ${STATES.join(', ')}, not ${valueText(state)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf: this.#bdf });
    }
    await nativeAsync(() => this.#device.setMigrationState(number), { bdf: this.#bdf });
  }

  estimateSize(): bigint {
    return native(() => this.#device.migrationDataSize(), { bdf: this.#bdf });
  }

  get preCopyData(): PreCopyData {
    return native(() => this.#device.precopyInfo(), { bdf: this.#bdf });
  }

  async *save(): AsyncGenerator<Uint8Array, void, undefined> {
    while (true) {
      const bytes = await nativeAsync(() => this.#device.readMigration(CHUNK), { bdf: this.#bdf });
      if (bytes.length === 0) return;
      yield bytes;
    }
  }

  async load(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) {
      const bytes = requireBytes(chunk);
      await nativeAsync(() => this.#device.writeMigration(bytes), { bdf: this.#bdf });
    }
  }
}

class VfioDmaLog implements DeviceDmaLog {
  readonly #bdf: string;
  readonly #device: NativeVfioDevice;

  constructor(bdf: string, device: NativeVfioDevice) {
    this.#bdf = bdf;
    this.#device = device;
  }

  start(ranges: readonly AddressRange[], pageSize: bigint): Promise<void> {
    const words = nativeWords(2 * ranges.length);
    for (const [index, range] of ranges.entries()) words.set([range.start, range.length], 2 * index);
    return nativeAsync(() => this.#device.startDmaLog(words, pageSize), { bdf: this.#bdf });
  }

  stop(): Promise<void> {
    return nativeAsync(() => this.#device.stopDmaLog(), { bdf: this.#bdf });
  }

  read({ start, length }: AddressRange, pageSize: bigint): Promise<BigUint64Array> {
    return nativeAsync(() => this.#device.readDmaLog(start, length, pageSize), { bdf: this.#bdf });
  }
}
