/**
 * The simulated IOMMU keeps the rules of VFIO type1v2; __test__/vfio/type1-rules.test.ts shows that they are the kernel's.
 */
import test from 'ava';
import { GuestMemory, SimulatedIommu } from '../../ts/index.ts';
import { type1Rules } from '../support/type1-rules.ts';

type1Rules((title, run) => {
  test(title, async (t) => {
    const memory = await GuestMemory.create({ addressWidth: 32 });
    t.teardown(() => memory.close());
    const target = new SimulatedIommu();
    await run(t, { target, memory, count: () => target.mappings().length });
  });
});
