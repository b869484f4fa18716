/**
 * The simulated IOMMU keeps the kernel's rules.
 *
 * __test__/vfio/behaviours.test.ts checks the same on the kernel.
 */
import test, { type ExecutionContext } from 'ava';
import { GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu } from '../../ts/testing.ts';
import { IOMMU_RULES, type IommuRulesName } from '../../ts/dma/iommu-rules.ts';
import { deviceBehaviours } from './device.ts';
import { iommuBehaviours } from './iommu.ts';
import type { DeviceRig, TargetRig } from './rig.ts';

async function targetRig(t: ExecutionContext, rules: IommuRulesName): Promise<TargetRig & { target: SimulatedIommu }> {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => memory.close());
  const target = new SimulatedIommu({ rules });
  return { target, rules: IOMMU_RULES[rules], memory, count: () => target.mappings().length };
}

async function deviceRig(t: ExecutionContext, rules: IommuRulesName): Promise<DeviceRig> {
  const rig = await targetRig(t, rules);
  const peer = new SimulatedDevice({
    bdf: '0000:00:06.0',
    bars: [{ index: 2, length: 1n << 20n, kind: 'memory64' }],
    resettable: true,
  });
  t.teardown(() => peer.close());
  /** A real device does not report a fault. */
  const unlessItFaults = async <T>(dma: () => T, otherwise: T): Promise<T> => {
    try {
      return dma();
    } catch (error) {
      if (error instanceof PeerDmaError && error.code === 'ERR_DMA_FAULT') return otherwise;
      throw error;
    }
  };
  return {
    ...rig,
    peer,
    keepsLentMemory: false,
    dmaRead: (iova, length) => unlessItFaults(() => rig.target.read(iova, length), new Uint8Array(length)),
    dmaWrite: (iova, bytes) => unlessItFaults(() => rig.target.write(iova, bytes), undefined),
  };
}

for (const rules of ['type1v2', 'iommufd'] as const) {
  iommuBehaviours((title, run) => test(`${rules}: ${title}`, async (t) => run(t, await targetRig(t, rules))));
  deviceBehaviours((title, run) => test(`${rules}: ${title}`, async (t) => run(t, await deviceRig(t, rules))));
}
