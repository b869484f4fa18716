/**
 * A config write that fails at any step changes nothing. This holds for config space, device, guest memory and targets.
 *
 * The same write succeeds when it is repeated after the cause was removed.
 */
import test from 'ava';
import { type AssignedDevice, PeerDmaError, type PeerToPeer } from '../../ts/index.ts';
import type { SimulatedInterrupts } from '../../ts/pci/simulated/simulated-interrupts.ts';
import { MASTER, MEMORY, barRegister, capability, command, writeBar32, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;

/** A guest write, the writes before it, and the number of steps that can fail: hardware and targets. */
interface Case {
  readonly name: string;
  readonly prepare: (device: AssignedDevice) => Promise<void>;
  readonly write: (device: AssignedDevice) => Promise<void>;
}

const PM_CONTROL = 4;
const KINDS = ['intx', 'msi', 'msix'] as const;

async function placeBars(device: AssignedDevice): Promise<void> {
  await writeBar32(device, 0, LOW);
  await writeBar64(device, 2, HIGH);
}

async function enableBars(device: AssignedDevice): Promise<void> {
  await placeBars(device);
  await command(device, MEMORY | MASTER);
}

const CASES: readonly Case[] = [
  { name: 'memory decode on', prepare: placeBars, write: (device) => command(device, MEMORY | MASTER) },
  { name: 'memory decode off', prepare: enableBars, write: (device) => command(device, MASTER) },
  {
    name: 'a BAR moves',
    prepare: enableBars,
    write: (device) => writeBar32(device, 0, LOW + MiB),
  },
  {
    name: 'a BAR moves to where it overlaps its last place',
    prepare: enableBars,
    write: (device) => device.configWrite(barRegister(2), 4, 0x10_0000),
  },
  {
    name: 'sleep',
    prepare: enableBars,
    write: (device) => device.configWrite(capability(device, 0x01) + PM_CONTROL, 2, 3),
  },
  {
    name: 'awake',
    prepare: async (device) => {
      await enableBars(device);
      await device.configWrite(capability(device, 0x01) + PM_CONTROL, 2, 3);
    },
    write: (device) => device.configWrite(capability(device, 0x01) + PM_CONTROL, 2, 0),
  },
  {
    name: 'function-level reset',
    prepare: enableBars,
    write: (device) => device.configWrite(capability(device, 0x10) + 8, 2, 0x8000),
  },
  {
    name: 'function-level reset while the pin is connected',
    prepare: async (device) => {
      device.interrupts.vector('intx').onInterrupt(() => {});
      await enableBars(device);
    },
    write: (device) => device.configWrite(capability(device, 0x10) + 8, 2, 0x8000),
  },
  {
    name: 'MSI instead of the pin',
    prepare: async (device) => {
      device.interrupts.vector('intx').onInterrupt(() => {});
      await enableBars(device);
    },
    write: (device) => device.configWrite(capability(device, 0x05) + 2, 2, 1),
  },
];

for (const { name, prepare, write } of CASES) {
  for (const policy of ['required', 'best-effort'] as const) {
    test(`${name}, ${policy}: rolls back when any step fails, and succeeds when repeated`, async (t) => {
      let failed = 0;
      for (let step = 0; t.passed; step++) {
        const outcome = await failAtStep(step, policy, prepare, write);
        if (outcome === 'no such step') break;
        if (outcome === 'failed') failed++;
        if (typeof outcome !== 'object') continue;
        const [wanted, found] = outcome.differs;
        t.is(found, wanted, `step ${step}`);
      }
      t.log(`${failed} cases`);
      t.true(failed > 0, 'some step can fail');
    });
  }
}

/** The visible state of everything. */
type StateSnapshot = (how?: 'without targets') => string;

/** Makes the write fail at one step, and compares the state before and after it. */
async function failAtStep(
  step: number,
  policy: PeerToPeer,
  prepare: Case['prepare'],
  write: Case['write'],
): Promise<'failed' | 'missed' | 'no such step' | { readonly differs: readonly [wanted: string, found: string] }> {
  return withFixture(policy, prepare, async ({ assigned, failStep, replaceRecorder }, snapshot) => {
    const [before, partBefore] = [snapshot(), snapshot('without targets')];
    const refused = failStep(step);
    const error: unknown = await write(assigned).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!refused()) return error === undefined ? 'no such step' : { differs: ['no error', String(error)] };
    if (error === undefined) return 'missed'; // by a target that may skip the BAR
    if (error instanceof PeerDmaError && error.code === 'ERR_UNMAP_FAILED') {
      // A range that it did not unmap is quarantined until it is closed.
      const seen = snapshot('without targets');
      if (seen !== partBefore) return { differs: [partBefore, seen] };
      await replaceRecorder();
    }
    if (snapshot() !== before) return { differs: [before, snapshot()] };
    await write(assigned);
    const wanted = await withFixture(policy, prepare, async (other, otherState) => {
      await write(other.assigned);
      return otherState();
    });
    return snapshot() === wanted ? 'failed' : { differs: [wanted, snapshot()] };
  });
}

async function withFixture<T>(
  policy: PeerToPeer,
  prepare: Case['prepare'],
  act: (
    device: {
      readonly assigned: AssignedDevice;
      readonly failStep: (step: number) => () => boolean;
      readonly replaceRecorder: () => Promise<void>;
    },
    snapshot: StateSnapshot,
  ) => Promise<T>,
): Promise<T> {
  const cleanUp: (() => void | Promise<void>)[] = [];
  const fixture = await Fixture.create({ teardown: (last) => cleanUp.push(last) }, policy);
  try {
    const device = fixture.simulated();
    const spy = fixture.spy(device);
    const assigned = await fixture.assign(spy);
    await prepare(assigned);
    const snapshot: StateSnapshot = (how) => {
      const { targets, quarantine, ...map } = fixture.memory.inspect();
      return JSON.stringify({
        map,
        ...(how === undefined ? { targets, quarantine, bars: assigned.inspect() } : { at: bars(assigned) }),
        config: Array.from({ length: 64 }, (_, index) => assigned.configRead(4 * index, 4)),
        hardware: [...device.config.read(0n, 256)],
        connected: KINDS.filter((kind) => (device.interrupts as SimulatedInterrupts).isConnected(kind)),
      });
    };
    /** Makes that step fail, once. The result reports whether it failed, and stops further failures. */
    const failStep = (step: number) => {
      let left = step;
      const failWith = (): unknown => (left-- === 0 ? new Error('injected failure') : undefined);
      spy.failWith = failWith;
      fixture.recorder.judge = failWith;
      return () => {
        const hit = left < 0;
        left = -1;
        return hit;
      };
    };
    const replaceRecorder = async (): Promise<void> => {
      fixture.recorder.closeWithMappings();
      await fixture.memory.dmaMappers.targetClosed(fixture.recorder);
      await fixture.memory.dmaMappers.addDmaMapper(fixture.recorder, { peerToPeer: policy });
    };
    return await act({ assigned, failStep, replaceRecorder }, snapshot);
  } finally {
    for (const last of cleanUp.toReversed()) await last();
  }
}

function bars(device: AssignedDevice): string[] {
  return device.status().map(({ bar, range, mapped }) => `${bar} at ${String(range)}: ${mapped.join()}`);
}
