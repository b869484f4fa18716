/**
 * Leaks when BARs move and devices are added and removed.
 */
import { held } from '../../support/held.ts';
import { testWith } from '../support/devices.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { repetitions } from '../support/repetitions.ts';
import { Guest, HIGH, HIGHER, LOW, mapped } from './support/guest.ts';

const DEVICES = repetitions(20);
const MOVES = 10;
/** V8 maps parts of its heap, and compiles code, over time. */
const SLACK = { mappings: 100, objects: 300 };

testWith(
  { edu: 2, ivshmem: 1 },
  `${DEVICES * MOVES} BAR moves, and ${DEVICES} devices that are added and removed, leave nothing behind`,
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    t.timeout(180_000);
    const guest = await Guest.start(t);
    const other = guest.newManager();
    const engine = await guest.engine(first);
    await guest.engine(second, { manager: other });
    // Also over RAM and in the window for interrupts.
    const places = [HIGH, LOW, 0x1000_0000n, HIGHER, 0xfe00_0000n];
    const pass = async (devices: number): Promise<void> => {
      for (let round = 0; round < devices; round++) {
        const passing = await guest.assign(bdf);
        const { firmware } = passing;
        await firmware.place(2, HIGH);
        await firmware.enable();
        for (let move = 0; move < MOVES; move++) {
          if (move % 5 === 3) await firmware.disable();
          await firmware.place(2, places[move % places.length] ?? 0n);
          await firmware.enable();
        }
        await guest.remove(passing);
      }
    };
    const count = async () => ({
      ...(await held()),
      vfioFiles: openVfioFiles().length,
      mapped: mapped(guest.manager, other),
      pinned: await pinnedAtRest(),
      targets: guest.memory.inspect().targets,
      flat: guest.memory.inspect().flat,
    });
    await pass(4);
    const before = await count();
    await pass(DEVICES);
    const after = await count();
    for (const what of ['descriptors', 'vfioFiles', 'mapped', 'pinned', 'targets', 'flat'] as const) {
      t.deepEqual(after[what], before[what], what);
    }
    for (const what of ['mappings', 'objects'] as const) {
      t.true(after[what] - before[what] <= SLACK[what], `${what}: ${before[what]}, later ${after[what]}`);
    }
    const peer = await guest.assign(bdf);
    await peer.firmware.place(2, LOW);
    await peer.firmware.enable();
    t.true(await engine.reaches(peer, LOW), 'everything still works');
  },
);
