/**
 * Guest memory with a back end of the tests, over a pair of sockets.
 */
import type { ExecutionContext } from 'ava';
import { EventFd, GuestMemory, UnixSocket } from '../../../ts/index.ts';
import { type VhostUserOptions, type VhostUserQueue, VhostUserTarget } from '../../../ts/vhost-user.ts';
import { type BackEndOptions, TestBackEnd } from './back-end.ts';

export const MIB = 1n << 20n;

/** A back end and its front end, which are closed at the end of the test. */
export async function pairOf(
  t: ExecutionContext,
  backEndOptions: BackEndOptions = {},
  options: VhostUserOptions = {},
): Promise<{ backEnd: TestBackEnd; target: VhostUserTarget }> {
  const [ours, theirs] = UnixSocket.pair();
  const backEnd = new TestBackEnd(theirs, backEndOptions);
  t.teardown(() => backEnd.die());
  const target = await VhostUserTarget.connect(ours, options);
  t.teardown(async () => {
    backEnd.die();
    await target.close();
  });
  return { backEnd, target };
}

/** Guest memory with 4 MiB of RAM at 0. */
export async function guestMemory(t: ExecutionContext): Promise<GuestMemory> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4n * MIB }], addressWidth: 36 });
  t.teardown(() => memory.close());
  return memory;
}

/** A queue of 8 descriptors at an address. */
export function queueAt(t: ExecutionContext, base: bigint): VhostUserQueue & { readonly call: EventFd } {
  const kick = EventFd.create();
  const call = EventFd.create();
  t.teardown(() => [kick, call].forEach((event) => event.close()));
  return { size: 8, descriptorTable: base, availableRing: base + 0x100n, usedRing: base + 0x200n, kick, call };
}
