// A back end that fails at each message of a session, in each way: every call settles, memory that it may use is mapped
// or in quarantine, and nothing remains open.
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  type DmaMapperHandle,
  EventFd,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  UnixSocket,
} from '../../ts/index.ts';
import { VhostUserTarget } from '../../ts/vhost-user.ts';
import { openFiles } from '../support/open-files.ts';
import { until } from '../support/until.ts';
import { BIT, type BackEndOptions, type Fault, TestBackEnd } from './support/back-end.ts';
import { MIB } from './support/scene.ts';

/** Faults after which too few bytes arrive: only the timeout ends the wait. */
const HANGS: readonly (Fault | undefined)[] = ['hang', 'hang after it', 'short payload'];
/** Milliseconds. */
const SHORT_TIMEOUT = 25;
const LONG_TIMEOUT = 20_000;
const FAULTS: readonly Fault[] = [
  'die',
  'hang',
  'hang after it',
  'refuse',
  'other request',
  'short payload',
  'huge payload',
  'no reply flag',
  'descriptor',
  'half a header',
  'noise',
];
const BACK_ENDS: Readonly<Record<string, bigint>> = {
  'ADD_MEM_REG and confirmations': BIT.mq | BIT.replyAck | BIT.config | BIT.memorySlots,
  'SET_MEM_TABLE and confirmations': BIT.mq | BIT.replyAck | BIT.config,
  'CONFIGURE_MEM_SLOTS without confirmations': BIT.config | BIT.memorySlots,
  'SET_MEM_TABLE alone': BIT.config,
};

/** The ranges that a target may reach, by the records of guest memory. */
function reachable(memory: GuestMemory, target: VhostUserTarget): AddressRange[] {
  const { targets, quarantine } = memory.inspect();
  const mapped = targets.find(({ name }) => name === target.name)?.mappings ?? [];
  return [...mapped.filter(({ state }) => state !== 'skipped'), ...quarantine].map(({ start, end }) =>
    AddressRange.between(BigInt(start), BigInt(end)),
  );
}

interface Outcome {
  readonly requests: number;
  readonly errors: readonly PeerDmaError[];
}

/** Runs a session with a driver and changes of memory. Checks the invariants after each step. */
async function session(t: ExecutionContext, options: BackEndOptions): Promise<Outcome> {
  const what = `${options.fault} at ${options.faultAt}`;
  const errors: PeerDmaError[] = [];
  const [ours, theirs] = UnixSocket.pair();
  const backEnd = new TestBackEnd(theirs, options);
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4n * MIB }], addressWidth: 36 });
  const file = MemoryFile.create(MIB);
  const kick = EventFd.create();
  const call = EventFd.create();
  let target: VhostUserTarget | undefined;
  const attempt = async (act: () => Promise<unknown>): Promise<boolean> => {
    const error = await act().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error !== undefined && !(error instanceof PeerDmaError)) throw new Error(what, { cause: error });
    if (error !== undefined) errors.push(error);
    if (target === undefined) return error === undefined;
    const ranges = reachable(memory, target);
    for (const { start, length } of backEnd.regions.values()) {
      const held = AddressRange.of(start, length);
      if (!ranges.some((range) => range.contains(held))) {
        throw new Error(`${what}: it maps ${held}, which is neither mapped nor in quarantine: ${ranges.join()}`);
      }
    }
    return error === undefined;
  };
  await attempt(async () => {
    const timeout = HANGS.includes(options.fault) ? SHORT_TIMEOUT : LONG_TIMEOUT;
    target = await VhostUserTarget.connect(ours, { name: 'disk', timeout });
  });
  if (target !== undefined) await drive(target, memory, file, { kick, call }, attempt);
  // The process of the back end ends: no memory stays in quarantine.
  backEnd.die();
  while (target !== undefined && target.state !== 'closed') await target.close().catch(() => {});
  if (target !== undefined) await memory.dmaMappers.targetClosed(target);
  t.deepEqual(memory.inspect().quarantine, [], what);
  await memory.close();
  for (const one of [file, kick, call]) one.close();
  return { requests: backEnd.requests.length, errors };
}

async function drive(
  target: VhostUserTarget,
  memory: GuestMemory,
  file: MemoryFile,
  events: { readonly kick: EventFd; readonly call: EventFd },
  attempt: (act: () => Promise<unknown>) => Promise<boolean>,
): Promise<void> {
  let joined: DmaMapperHandle | undefined;
  await attempt(async () => {
    joined = await memory.dmaMappers.addDmaMapper(target);
  });
  const addresses = { descriptorTable: 0x1000n, availableRing: 0x2000n, usedRing: 0x3000n };
  await attempt(() => target.setQueue(0, { size: 8, ...addresses, ...events }));
  const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
  await hot.addMapping({ backing: { file, offset: 0n } });
  await attempt(() => hot.mapToGuest());
  await attempt(() => hot.unmapFromGuest());
  const range = AddressRange.of(2n * MIB, MIB);
  const overlay = await memory.regions.addRegion({ name: 'overlay', range, priority: 1000 });
  await overlay.addMapping({ backing: { file, offset: 0n } });
  await attempt(() => overlay.mapToGuest());
  await attempt(() => target.readConfig(0, 4));
  await attempt(() => target.writeConfig(0, new Uint8Array(4)));
  await attempt(() => target.stopQueue(0));
  await attempt(() => target.reset());
  await attempt(() => target.setFeatures(0n));
  await attempt(async () => joined?.remove());
  await attempt(() => target.close());
}

for (const [name, protocol] of Object.entries(BACK_ENDS)) {
  test(`without a fault, a session succeeds, with ${name}`, async (t) => {
    const { errors } = await session(t, { protocol });
    t.deepEqual(errors, []);
  });

  for (const fault of FAULTS) {
    // Descriptors that were not closed would be collected: their test runs alone, and counts at once.
    const run = fault === 'descriptor' ? test.serial : test;
    run(`survives "${fault}" at each message, with ${name}`, async (t) => {
      const { requests } = await session(t, { protocol });
      t.true(requests > 15);
      const before = openFiles().length;
      let failed = 0;
      for (let faultAt = 0; faultAt < requests; faultAt++) {
        const { errors } = await session(t, { protocol, fault, faultAt });
        if (errors.length > 0) failed++;
      }
      t.true(failed > 0);
      if (fault === 'descriptor') t.is(openFiles().length, before);
      await until(() => openFiles().length <= before, `${openFiles().length} open files, ${before} before`);
      t.pass();
    });
  }
}
