/**
 * A user's DMA target that breaks its contract: it has real mappings, and reports them wrongly.
 */
import { Edu } from '../../examples/devices/edu.ts';
import {
  AddressRange,
  type DmaMapRequest,
  type DmaTarget,
  GuestMemory,
  type HostMemory,
  MemoryFile,
  PeerDmaError,
} from '../../ts/index.ts';
import { Type1Target } from '../../ts/vfio/type1/type1-target.ts';
import { asDmaTarget } from '../support/kernel-target-as-dma-target.ts';
import { testWith } from './support/devices.ts';
import { unmapAll, unmapFrom } from './support/native-calls.ts';
import { NativeRig, nativeEdu } from './support/native-rig.ts';
import { pattern } from './support/rig.ts';
import { Witnesses } from './support/witnesses.ts';

const RAM = 0x1000_0000n;
const AT = 0x2000_0000n;
const LENGTH = 0x1_0000n;
const BYTES = Edu.BUFFER_SIZE;

/** Forwards everything to a container, except for its fault. */
class WrongTarget implements DmaTarget {
  readonly name = 'wrong';
  readonly needsVa = true;
  readonly kept: HostMemory[] = [];
  readonly requests: DmaMapRequest[] = [];
  readonly #real: DmaTarget;
  /** Reports a successful unmap without unmapping. */
  idle = false;
  /** Settles more than once, and throws after that. */
  twice = false;

  constructor(real: DmaTarget) {
    this.#real = real;
  }

  mapDma(request: DmaMapRequest): Promise<void> {
    this.requests.push(request);
    if (request.hostMemory !== undefined) this.kept.push(request.hostMemory);
    return this.#settle(this.#real.mapDma(request));
  }

  unmapDma(range: AddressRange): Promise<void> {
    return this.#settle(this.idle ? undefined : this.#real.unmapDma(range));
  }

  #settle(done: void | Promise<void>): Promise<void> {
    if (!this.twice) return Promise.resolve(done);
    const thenable = {
      // oxlint-disable-next-line unicorn/no-thenable -- one that misbehaves is what is wanted
      then: (resolve: () => void, reject: (error: Error) => void) => {
        void Promise.resolve(done)
          .then(() => {
            resolve();
            resolve();
            reject(new Error('after all'));
            throw new Error('and again');
          })
          .catch(() => {});
      },
    };
    return thenable as unknown as Promise<void>;
  }
}

testWith(
  { edu: 1 },
  'a target that keeps leases and reports wrongly reaches nothing but its mappings',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await NativeRig.open(t, bdf);
    const edu = nativeEdu(bdf, rig.devices[0] as NonNullable<(typeof rig.devices)[0]>);
    const real = asDmaTarget(new Type1Target(rig.container, 'real'));
    const target = new WrongTarget(real);
    const memory = await GuestMemory.create({ ram: [{ start: RAM, length: LENGTH }] });
    t.teardown(async () => {
      unmapAll(rig.container);
      await memory.close();
    });
    await memory.dmaMappers.addDmaMapper(target);
    using file = MemoryFile.create(LENGTH, { name: 'shown' });
    using next = MemoryFile.create(LENGTH, { name: 'next' });
    const witnesses = new Witnesses();
    const region = await memory.regions.addRegion({ name: 'region', range: AddressRange.of(AT, LENGTH) });
    await region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: { file, offset: 0n } });
    const store = async (seed: number) => {
      memory.write(RAM, pattern(seed));
      await edu.copy(RAM, AT, BYTES);
    };

    target.twice = true;
    await region.mapToGuest();
    await store(1);
    t.deepEqual(file.read(0n, BYTES), pattern(1), 'settling twice is settling once');
    await region.unmapFromGuest();
    await store(2);
    t.deepEqual(file.read(0n, BYTES), pattern(1));
    target.twice = false;

    // The handle that it kept is revoked: it can be neither copied from nor mapped.
    const [stale] = target.kept.slice(-1) as [HostMemory];
    const [request] = target.requests.slice(-1) as [DmaMapRequest];
    t.throws(() => stale.read(0n, 8), { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });
    t.throws(() => stale.write(0n, new Uint8Array(8)), { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });
    await t.throwsAsync(async () => real.mapDma(request), { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });

    // It reports an unmap. The memory stays mapped in this process, since the IOMMU mapping holds it.
    await region.mapToGuest();
    target.idle = true;
    const refused = await t.throwsAsync(region.unmapFromGuest(), { instanceOf: PeerDmaError });
    // The memory cannot be unmapped, and the existing mapping cannot be mapped again: the wrong report shows.
    t.is(refused?.code, 'ERR_ROLLBACK_FAILED');
    t.regex(refused?.message ?? '', /is in use.*lease/);
    for (let round = 0; round < 4; round++) witnesses.add();
    await store(3);
    t.deepEqual(file.read(0n, BYTES), pattern(3), 'the device still uses the memory that it had');
    t.is(witnesses.changed, 0);
    t.like(memory.inspect().targets[0]?.mappings.at(-1), { region: 'region', state: 'failed' });
    await t.throwsAsync(region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: { file: next, offset: 0n } }));
    await store(4);
    t.deepEqual(next.read(0n, BYTES), new Uint8Array(BYTES), 'no other memory is mapped there');
    t.is(witnesses.changed, 0);

    // The real unmap at last.
    unmapFrom(rig.container, AT, LENGTH);
    target.idle = false;
    await memory.dmaMappers.targetClosed(target);
    await store(5);
    t.is(witnesses.changed, 0);
  },
);
