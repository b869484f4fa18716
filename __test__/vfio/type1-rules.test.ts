/**
 * The rules of VFIO type1v2, as the kernel has them.
 */
import { GuestMemory } from '../../ts/index.ts';
import { addressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { type1Rules } from '../support/type1-rules.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

type1Rules((title, run) => {
  testWith({ any: 1 }, title, async (t, { any: [bdf = ''] }) => {
    const { memory: followed, manager, open } = await rig(t, false);
    await open(bdf);
    const [mapper] = addressSpaceOf(followed).mappers;
    if (mapper === undefined) throw new Error('the container follows guest memory');
    const available = (): number => manager.inspect()[0]?.dmaAvailable ?? NaN;
    const all = available();
    const memory = await GuestMemory.create({ addressWidth: 32 });
    t.teardown(() => memory.close());
    await run(t, { target: mapper.target, memory, count: () => all - available() });
  });
});
