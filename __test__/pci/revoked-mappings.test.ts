/**
 * Checks that the guest never has a revoked mapping.
 *
 * The IOMMU revokes a BAR when it stops decoding (iommufd). A BAR is unmapped before its device receives the write. DMA
 * of another device reaches each BAR exactly while and where it decodes.
 */
import test, { type ExecutionContext } from 'ava';
import { type AssignedDevice, type PhysicalFunction, resetDevices } from '../../ts/index.ts';
import { SimulatedBus, SimulatedDevice, type SimulatedDeviceOptions } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { MASTER, MEMORY, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';
import type { SpyFunction } from './support/spy-function.ts';

const HERE = 0x40_0000_0000n;
const THERE = HERE + MiB;
const ELSEWHERE = HERE + 16n * MiB;
const PLACES = { here: HERE, there: THERE, elsewhere: ELSEWHERE } as const;
type Place = keyof typeof PLACES;

class RevocationFixture {
  readonly fixture: Fixture;
  readonly device: SimulatedDevice;
  readonly assigned: AssignedDevice;
  /** Hardware accesses made while a revocable mapping of the BARs existed. */
  readonly writesWhileMapped: string[] = [];
  readonly #t: ExecutionContext;
  readonly #initiator: SimulatedDevice;

  private constructor(
    t: ExecutionContext,
    parts: Pick<RevocationFixture, 'fixture' | 'device' | 'assigned'>,
    spy: SpyFunction,
  ) {
    this.#t = t;
    this.fixture = parts.fixture;
    this.device = parts.device;
    this.assigned = parts.assigned;
    this.#initiator = new SimulatedDevice({ bdf: '0000:00:1f.0', bars: [], iommu: this.fixture.iommufd });
    this.#initiator.config.write(4n, Uint8Array.of(MASTER, 0));
    t.teardown(() => this.#initiator.close());
    const name = `of ${this.device.bdf}`;
    spy.failWith = (what) => {
      const has = this.fixture.iommufd.mappings().some((mapping) => mapping.region.endsWith(name));
      if (has) this.writesWhileMapped.push(what);
    };
  }

  /** Creates a device whose BARs 0 and 2, of 1 MiB each, decode at `here` and `there`. */
  static async create(t: ExecutionContext, options: Partial<SimulatedDeviceOptions> = {}): Promise<RevocationFixture> {
    const fixture = await Fixture.create(t);
    const bars = [0, 2].map((index) => ({ index, length: MiB, kind: 'memory64', prefetchable: true }) as const);
    const device = fixture.simulated({ bars, ...options, msix: undefined } as never);
    const spy = fixture.spy(device);
    const assigned = await fixture.assign(spy);
    const setup = new RevocationFixture(t, { fixture, device, assigned }, spy);
    await writeBar64(assigned, 0, HERE);
    await writeBar64(assigned, 2, THERE);
    await command(assigned, MEMORY);
    setup.assertReachable({ here: 0, there: 2 });
    setup.writesWhileMapped.length = 0;
    return setup;
  }

  /** Asserts that another device reaches exactly these BARs at these places. No mapping may be revoked. */
  assertReachable(expected: Partial<Record<Place, number>>, what = ''): void {
    const found: Partial<Record<Place, number>> = {};
    for (const [place, gpa] of Object.entries(PLACES) as [Place, bigint][]) {
      const bar = this.#barAt(gpa);
      if (bar !== undefined) found[place] = bar;
    }
    this.#t.deepEqual(found, expected, what);
    this.#t.deepEqual(this.fixture.revokedMappings(), [], what);
    const mapped = this.fixture.iommufd.mappings().filter(({ kind }) => kind === 'device');
    this.#t.is(mapped.length, Object.keys(expected).length, `${what}: nothing else is mapped`);
  }

  /** Returns the BAR that DMA to an address reaches, at its first and its last bytes. */
  #barAt(gpa: bigint): number | undefined {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    try {
      this.#initiator.dmaWrite(gpa, bytes);
      this.#initiator.dmaWrite(gpa + MiB - 16n, bytes);
    } catch {
      return undefined;
    }
    return [0, 2].find((index) => {
      const bar = (this.device as PhysicalFunction).regions[index];
      return [0n, MiB - 16n].every((offset) => bar !== undefined && Buffer.compare(bar.read(offset, 16), bytes) === 0);
    });
  }
}

test('leaves no revoked mapping when memory decode is switched off and on', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { assigned, writesWhileMapped } = setup;
  for (let round = 0; round < 3; round++) {
    await command(assigned, MASTER);
    setup.assertReachable({}, 'off');
    t.deepEqual(writesWhileMapped, [], 'the BARs were unmapped before the device received the write');
    await command(assigned, MEMORY);
    setup.assertReachable({ here: 0, there: 2 }, 'on');
    writesWhileMapped.length = 0;
  }
  await command(assigned, MEMORY | MASTER);
  setup.assertReachable({ here: 0, there: 2 });
  t.deepEqual(writesWhileMapped, ['config 0x4 = 0x6'], 'what does not go off keeps its mappings');
});

test('leaves no revoked mapping when the device enters and leaves D3hot, with decode on and off', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { assigned, writesWhileMapped } = setup;
  const power = capability(assigned, 0x01) + 4;
  for (let round = 0; round < 2; round++) {
    await assigned.configWrite(power, 2, 3);
    setup.assertReachable({}, 'in D3hot');
    t.deepEqual(writesWhileMapped, []);
    await assigned.configWrite(power, 2, 0);
    setup.assertReachable({ here: 0, there: 2 }, 'awake');
    writesWhileMapped.length = 0;
  }
  await assigned.configWrite(power, 2, 3);
  await command(assigned, 0);
  await assigned.configWrite(power, 2, 0);
  setup.assertReachable({}, 'in D0, decode off');
  await assigned.configWrite(power, 2, 3);
  await command(assigned, MEMORY);
  await writeBar64(assigned, 0, ELSEWHERE);
  setup.assertReachable({}, 'in D3hot, decode on');
  await assigned.configWrite(power, 2, 0);
  setup.assertReachable({ elsewhere: 0, there: 2 });
});

test('leaves no revoked mapping at a function-level reset, after which VFIO enables decode', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { assigned, writesWhileMapped } = setup;
  const control = capability(assigned, 0x10) + 8;
  for (let round = 0; round < 2; round++) {
    await assigned.configWrite(control, 2, 0x8000);
    setup.assertReachable({ here: 0, there: 2 });
    t.deepEqual(writesWhileMapped, []);
  }
});

for (const how of ['alone', 'with its bus'] as const) {
  test(`leaves no revoked mapping at a reset ${how}, after which the guest places the BARs again`, async (t) => {
    const bus = how === 'alone' ? undefined : new SimulatedBus();
    const setup = await RevocationFixture.create(t, bus === undefined ? {} : { bus, resettable: false });
    const { assigned, writesWhileMapped } = setup;
    for (let round = 0; round < 2; round++) {
      await resetDevices([assigned]);
      setup.assertReachable({});
      t.deepEqual(writesWhileMapped, []);
      await writeBar64(assigned, 0, THERE);
      await writeBar64(assigned, 2, ELSEWHERE);
      await command(assigned, MEMORY);
      setup.assertReachable({ there: 0, elsewhere: 2 });
      writesWhileMapped.length = 0;
    }
  });
}

test('keeps the mappings of a device that is not on a reset bus', async (t) => {
  const bus = new SimulatedBus();
  const setup = await RevocationFixture.create(t, { bus, resettable: false });
  const { fixture, assigned } = setup;
  const beside = await fixture.assign(fixture.simulated({ bus, resettable: false }));
  const apart = fixture.simulated();
  const other = await fixture.assign(apart);
  const far = ELSEWHERE + 16n * MiB;
  await writeBar64(beside, 2, ELSEWHERE);
  await writeBar64(other, 2, far);
  for (const one of [beside, other]) await command(one, MEMORY);
  await rejectsCode(t, assigned.reset(), 'ERR_RESET_UNSUPPORTED');
  t.deepEqual(fixture.revokedMappings(), [], 'quiet, and not reset');
  t.true(fixture.reaches(ELSEWHERE, beside.device, 2));
  await resetDevices([beside, assigned]);
  t.deepEqual(fixture.revokedMappings(), []);
  t.false(fixture.reaches(ELSEWHERE, beside.device, 2));
  t.true(fixture.reaches(far, apart, 2));
});

test('leaves no revoked mapping when BARs move, overlap and swap places', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { assigned } = setup;
  await writeBar64(assigned, 0, ELSEWHERE);
  setup.assertReachable({ elsewhere: 0, there: 2 }, 'moved');
  await writeBar64(assigned, 0, THERE);
  setup.assertReachable({ there: 0 }, 'the older is seen');
  await writeBar64(assigned, 2, HERE);
  setup.assertReachable({ here: 2, there: 0 }, 'swapped');
  await command(assigned, 0);
  await writeBar64(assigned, 0, HERE);
  await writeBar64(assigned, 2, THERE);
  await command(assigned, MEMORY);
  setup.assertReachable({ here: 0, there: 2 }, 'swapped back, in one change');
});

test('unmaps a device before it is closed', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { fixture, assigned, writesWhileMapped } = setup;
  await assigned.close();
  t.deepEqual(writesWhileMapped, []);
  t.deepEqual(fixture.revokedMappings(), []);
  t.deepEqual(
    fixture.iommufd.mappings().map(({ region }) => region),
    ['ram0'],
  );
});

test('reports and unmaps a device that was closed or disabled by others', async (t) => {
  const setup = await RevocationFixture.create(t);
  const { fixture, device, assigned } = setup;
  device.config.write(4n, Uint8Array.of(0, 0));
  device.config.write(4n, Uint8Array.of(MEMORY, 0));
  t.is(fixture.revokedMappings().length, 2, 'by the IOMMU that has lost them alone');
  t.deepEqual(
    assigned.status().map(({ unreachable }) => unreachable.map(({ target, code }) => `${target} ${code}`)),
    [['iommufd ERR_MAPPING_REVOKED'], ['iommufd ERR_MAPPING_REVOKED']],
  );
  await writeBar64(assigned, 0, HERE); // where it is: nothing changes
  await command(assigned, 0);
  await command(assigned, MEMORY);
  setup.assertReachable({ here: 0, there: 2 }, 'off and on by the guest');
  await device.close();
  t.is(fixture.revokedMappings().length, 2);
  await assigned.close();
  t.deepEqual(fixture.revokedMappings(), []);
});
