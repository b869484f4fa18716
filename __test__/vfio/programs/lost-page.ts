/**
 * A process that loses a page of RAM which an IOMMU maps. It is started as `lost-page.ts EDU`, and prints the results
 * as JSON; with a second argument it reads the page instead, which ends it.
 */
import { Edu } from '../../../examples/devices/edu.ts';
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';
import { losePage } from '../support/lost-page.ts';
import { pinnedPages } from '../support/pins.ts';
import { RAM_LENGTH, RAM_START, SINK, pattern, send } from '../support/rig.ts';

const RANGE = AddressRange.of(0x2000_0000n, 0x1_0000n);
const PAGE = 0x1000n;
/** Offset of the lost page. */
const LOST = 3n * PAGE;
const [bdf = '', isRead] = process.argv.slice(2);

const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
const manager = newManager(memory);
const edu = new Edu(await manager.open(bdf));
const before = pinnedPages();
const file = MemoryFile.create(RANGE.length, { name: 'with-lost-page' });
const region = await memory.regions.addRegion({ name: 'high', range: RANGE });
await region.addMapping({ range: AddressRange.of(0n, RANGE.length), backing: { file, offset: 0n } });
await region.mapToGuest();
memory.read(RANGE.start, Number(RANGE.length)); // maps the pages in this process
try {
  losePage('memfd:with-lost-page', LOST);
} catch (error) {
  // The kernel reports that a device still uses the page.
  if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
}
if (isRead !== undefined) memory.read(RANGE.start + LOST, 8);

/** Whether a device writes to an address, as far as this process can read it. */
async function arrives(seed: number, at: bigint): Promise<boolean> {
  const bytes = pattern(seed);
  await send(memory, edu, bytes, at);
  return Buffer.compare(memory.read(at, bytes.length), bytes) === 0;
}

async function errorOf(act: () => unknown): Promise<string> {
  try {
    await act();
    return 'no error';
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    return `${error.code} ${error.errno}`;
  }
}

const results = {
  beside: await arrives(1, RANGE.start + LOST + PAGE),
  byFile: await errorOf(() => file.read(LOST, 8)),
  /** The device does not stop. */
  device: await errorOf(() => send(memory, edu, pattern(2), RANGE.start + LOST)),
  unmap: await errorOf(() => region.unmapFromGuest()),
  pinned: pinnedPages() - before,
  elsewhere: await arrives(3, SINK),
  mapAgain: await errorOf(() => region.mapToGuest()),
};
console.log(JSON.stringify(results));
await manager.close();
await memory.close();
