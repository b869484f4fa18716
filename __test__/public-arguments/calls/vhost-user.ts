/**
 * Calls of vhost-user targets, with a back end in this process.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, EventFd, MemoryFile, UnixSocket } from '../../../ts/index.ts';
import { VhostUserTarget } from '../../../ts/vhost-user.ts';
import { PAGE } from '../../support/pages.ts';
import { TestBackEnd } from '../../vhost-user/support/back-end.ts';
import { type Anything, type Calls, options } from '../values.ts';

const RAM = AddressRange.of(0n, 4n * PAGE);
const FREE = AddressRange.of(16n * PAGE, PAGE);

async function connect(given: Anything): Promise<{ target: VhostUserTarget; backEnd: TestBackEnd }> {
  const [ours, theirs] = UnixSocket.pair();
  const backEnd = new TestBackEnd(theirs);
  try {
    return { target: await VhostUserTarget.connect(ours, given), backEnd };
  } catch (error) {
    backEnd.die();
    ours.close();
    throw error;
  }
}

export async function vhostUserCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const { target, backEnd } = await connect({ timeout: 20_000 });
  const file = MemoryFile.create(4n * PAGE);
  const kick = EventFd.create();
  t.teardown(async () => {
    backEnd.die();
    await target.close();
    file.close();
    kick.close();
  });
  const request = { range: RAM, backing: { file, offset: 0n }, writable: true, kind: 'ram', name: 'ram' } as const;
  await target.mapDma(request);
  const mapAndUnmap = async (given: Anything): Promise<void> => {
    await target.mapDma(given);
    await target.unmapDma(given.range);
  };
  const queue = { size: 8, descriptorTable: 0n, availableRing: PAGE, usedRing: 2n * PAGE, base: 0, kick };
  const setAndStop = async (index: Anything, given: Anything): Promise<void> => {
    await target.setQueue(index, given);
    await target.stopQueue(index);
  };
  const free = { ...request, range: FREE };
  return {
    'VhostUserTarget.connect': {
      to: (value) => VhostUserTarget.connect(value),
      ...options(
        { name: 'x', features: 0n, timeout: 20_000, withoutProtocolFeatures: [], signal: undefined },
        async (given) => {
          const made = await connect(given);
          made.backEnd.die();
          await made.target.close();
        },
      ),
    },
    'VhostUserTarget#onStateChange': { callback: (value) => target.onStateChange(value) },
    'VhostUserTarget#setFeatures': { features: (value) => target.setFeatures(value) },
    'VhostUserTarget#mapDma': options(free, mapAndUnmap),
    'VhostUserTarget#mapDmaBatch': { requests: (value) => target.mapDmaBatch(value) },
    'VhostUserTarget#unmapDma': { range: (value) => target.unmapDma(value) },
    'VhostUserTarget#setQueue': {
      index: (value) => setAndStop(value, queue),
      ...options(queue, (given) => setAndStop(0, given)),
    },
    'VhostUserTarget#stopQueue': { index: (value) => target.stopQueue(value) },
    'VhostUserTarget#readConfig': {
      offset: (value) => target.readConfig(value, 1),
      length: (value) => target.readConfig(0, value),
    },
    'VhostUserTarget#writeConfig': {
      offset: (value) => target.writeConfig(value, Uint8Array.of(1)),
      bytes: (value) => target.writeConfig(0, value),
    },
  };
}
