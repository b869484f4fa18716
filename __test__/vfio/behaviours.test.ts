/**
 * Runs the tests of IOMMU behaviour on the kernel.
 */
import type { ExecutionContext } from 'ava';
import { Edu } from '../../examples/devices/edu.ts';
import { GuestMemory, type PhysicalFunction } from '../../ts/index.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import type { KernelTarget } from '../../ts/dma/kernel-target.ts';
import { deviceBehaviours } from '../behaviours/device.ts';
import { iommuBehaviours } from '../behaviours/iommu.ts';
import type { TargetRig } from '../behaviours/rig.ts';
import { asDmaTarget } from '../support/kernel-target-as-dma-target.ts';
import { RULES } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { type Rig, SINK, SOURCE, rig } from './support/rig.ts';

/** The target of an opened device. */
async function targetRig(t: ExecutionContext, { memory: followed, manager }: Rig): Promise<TargetRig> {
  const [mapper] = guestAddressSpaceOf(followed).mappers;
  if (mapper === undefined) throw new Error('the container is a DMA target');
  const count = (): number => manager.inspect().containers[0]?.mappings ?? NaN;
  const own = count();
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  return { target: asDmaTarget(mapper.target as KernelTarget), rules: RULES, memory, count: () => count() - own };
}

iommuBehaviours((title, run) => {
  testWith({ any: 1 }, title, async (t, { any: [bdf = ''] }) => {
    const guest = await rig(t, false);
    await guest.open(bdf);
    await run(t, await targetRig(t, guest));
  });
});

deviceBehaviours((title, run) => {
  testWith({ edu: 1, ivshmem: 2 }, title, async (t, { edu: [engine = ''], ivshmem }) => {
    const guest = await rig(t);
    const edu = new Edu(await guest.open(engine));
    // The device behind a port, which can be reset.
    const peer: PhysicalFunction = await guest.open(ivshmem.find((bdf) => !bdf.startsWith('0000:00:')) ?? '');
    const target = await targetRig(t, guest);
    await run(t, {
      ...target,
      peer,
      keepsLentMemory: true,
      dmaRead: async (iova, length) => {
        guest.memory.write(SINK, new Uint8Array(length));
        await edu.copy(iova, SINK, length);
        return guest.memory.read(SINK, length);
      },
      dmaWrite: async (iova, bytes) => {
        guest.memory.write(SOURCE, bytes);
        await edu.copy(SOURCE, iova, bytes.length);
      },
    });
  });
});
