/** A guest memory with three DMA targets, and devices that its guest can place. A small machine with peer-to-peer. */
import {
  AssignedDevice,
  GuestMemory,
  type PeerToPeer,
  type PhysicalFunction,
  type BarsOptions,
} from '../../../ts/index.ts';
import { SimulatedDevice, type SimulatedDeviceOptions, SimulatedIommu } from '../../../ts/testing.ts';
import { RecordingTarget } from '../../support/recording-target.ts';
import { SpyFunction } from './spy-function.ts';

export const MiB = 1n << 20n;
export const RAM = 0x10_0000n;
export const RAM_LENGTH = 4n * MiB;

/** BAR 0: registers with an MSI-X table, 64 KiB, 32-bit. BAR 2: memory, 1 MiB, 64-bit. BAR 4: 256 bytes. */
export const BARS = [
  { index: 0, length: 0x1_0000n, kind: 'memory32' },
  { index: 2, length: MiB, kind: 'memory64', prefetchable: true },
  { index: 4, length: 0x100n, kind: 'memory32' },
] as const;

export const DEFAULTS: Omit<SimulatedDeviceOptions, 'bdf'> = {
  bars: BARS,
  msix: { vectors: 4, bar: 0, tableOffset: 0x2000n, pendingOffset: 0x3000n },
  msi: { vectors: 4, masking: true },
  powerManagement: {},
  pcie: { flr: true },
  interruptPin: true,
};

/** A test context that runs teardowns. */
interface TestContext {
  readonly teardown: (act: () => void | Promise<void>) => void;
}

/** One guest with its devices. */
export class Fixture {
  readonly memory: GuestMemory;
  /** Has the rules of type1. DMA of the devices goes through it. */
  readonly iommu: SimulatedIommu;
  /** Has the rules of iommufd. It must agree with the type1 IOMMU. */
  readonly iommufd: SimulatedIommu;
  readonly recorder: RecordingTarget;
  /** The calls of the recorder and the hardware accesses, in order. */
  readonly log: string[];
  readonly #t: TestContext;
  #devices = 4;

  private constructor(t: TestContext, targets: Pick<Fixture, 'memory' | 'iommu' | 'iommufd' | 'recorder'>) {
    this.#t = t;
    this.memory = targets.memory;
    this.iommu = targets.iommu;
    this.iommufd = targets.iommufd;
    this.recorder = targets.recorder;
    this.log = this.recorder.calls;
  }

  static async create(t: TestContext, peerToPeer: PeerToPeer = 'best-effort'): Promise<Fixture> {
    const memory = await GuestMemory.create({ ram: [{ start: RAM, length: RAM_LENGTH }], addressWidth: 40 });
    const iommu = new SimulatedIommu({ name: 'iommu' });
    const iommufd = new SimulatedIommu({ name: 'iommufd', rules: 'iommufd' });
    const recorder = new RecordingTarget();
    for (const target of [iommu, iommufd, recorder]) await memory.dmaMappers.addDmaMapper(target, { peerToPeer });
    const fixture = new Fixture(t, { memory, iommu, iommufd, recorder });
    t.teardown(async () => {
      await memory.close();
      if (recorder.breaches.length > 0) throw new Error(recorder.breaches.join('; '));
    });
    return fixture;
  }

  simulated(options: Partial<SimulatedDeviceOptions> = {}): SimulatedDevice {
    const bdf = `0000:00:${(this.#devices++).toString(16).padStart(2, '0')}.0`;
    return new SimulatedDevice({ bdf, iommu: this.iommu, ...DEFAULTS, ...options });
  }

  spy(device: PhysicalFunction): SpyFunction {
    return new SpyFunction(device, (what) => this.log.push(what));
  }

  async assign(device: PhysicalFunction = this.simulated(), bars: BarsOptions = {}): Promise<AssignedDevice> {
    const assigned = await AssignedDevice.create({ device, memory: this.memory, bars });
    this.#t.teardown(() => assigned.close());
    this.log.length = 0;
    return assigned;
  }

  /** Returns the entries since the last call. */
  drainLog(): string[] {
    return this.log.splice(0);
  }

  /** Whether DMA to an address reaches a BAR of a device, through both IOMMUs. */
  reaches(gpa: bigint, device: PhysicalFunction, bar: number, offset = 0n): boolean {
    const [byType1, byIommufd] = [this.iommu, this.iommufd].map((iommu) => {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      try {
        iommu.write(gpa, bytes);
      } catch {
        return false;
      }
      const region = device.regions[bar];
      return region !== undefined && Buffer.compare(region.read(offset, bytes.length), bytes) === 0;
    });
    if (byType1 !== byIommufd)
      throw new Error(`${device.bdf} is reached by type1: ${byType1}, by iommufd: ${byIommufd}`);
    return byType1 === true;
  }

  /** Returns the bytes that a device reads by DMA; `undefined` if it faults. */
  find(gpa: bigint, length: number): Uint8Array | undefined {
    const [byType1, byIommufd] = [this.iommu, this.iommufd].map((iommu) => {
      try {
        return iommu.read(gpa, length);
      } catch {
        return undefined;
      }
    });
    if (String(byType1) !== String(byIommufd)) {
      throw new Error(`type1 has ${byType1} at 0x${gpa.toString(16)}, iommufd ${byIommufd}`);
    }
    return byType1;
  }

  /** Returns the revoked mappings. */
  revokedMappings(): string[] {
    return this.memory
      .inspect()
      .targets.flatMap(({ name, mappings }) =>
        mappings
          .filter(({ code }) => code === 'ERR_MAPPING_REVOKED')
          .map(({ start, end, region }) => `${name}: ${region} at ${start}..${end}`),
      );
  }

  /** Returns the BARs that the recorder has mapped. */
  mappedBars(): string[] {
    return this.recorder.heldText().filter((held) => held.includes('BAR'));
  }
}
