/**
 * A process of its own that maps, moves, unmaps and fails for so many rounds, and says in a line of JSON what it held
 * before and after: `leak-rounds.ts ROUNDS`.
 */
import assert from 'node:assert/strict';
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError, SimulatedIommu } from '../../ts/index.ts';
import { held } from './held.ts';
import { PAGE, at, pages } from './pages.ts';
import { RecordingTarget, RefuseAt } from './recording-target.ts';

const WARM_UP = 2000;
const BAR_PAGES = 8;
/** Where the BAR goes in turn: among them where it overlaps its last place. */
const PLACES = [2048, 2052, 4096, 1 << 20, 64];

const memory = await GuestMemory.create({
  addressWidth: 40,
  ram: [
    { start: 0n, length: at(32) },
    { start: at(1024), length: at(16), private: true },
  ],
});
const barFile = MemoryFile.create(at(BAR_PAGES), { name: 'bar' });
const bar = memory.newDeviceMemory({ name: 'bar', length: at(BAR_PAGES) });
await bar.addMapping({ range: AddressRange.of(0n, at(BAR_PAGES)), backing: { file: barFile, offset: 0n } });
const iommu = new SimulatedIommu({ name: 'simulated' });
const recorder = new RecordingTarget({ name: 'recorder', needsVa: true });
await memory.dmaMappers.addDmaMapper(iommu);
await memory.dmaMappers.addDmaMapper(recorder, { peerToPeer: 'required' });

async function failsWith(code: string, doing: Promise<unknown>): Promise<void> {
  await assert.rejects(doing, (error) => error instanceof PeerDmaError && error.code === code);
}

/** The BAR moves through the guest; now and then a step of it fails, and the move is made again. */
async function moves(round: number): Promise<void> {
  for (let step = 0; step < 2; step++) {
    const gpa = at(PLACES[(round + step) % PLACES.length] ?? 0);
    if (round % 7 === step) {
      const refusal = new RefuseAt('map', round % 3);
      recorder.judge = refusal.judge;
      const outcome = await bar.mapToGuest(gpa).then(
        () => undefined,
        (error: unknown) => error,
      );
      assert.equal(outcome !== undefined, refusal.hit);
      recorder.judge = () => undefined;
    }
    await bar.mapToGuest(gpa);
    if (round % 11 === 0) iommu.write(gpa, Uint8Array.of(round));
  }
  await bar.unmapFromGuest();
}

/** A target joins and leaves; every other time it refuses to let go, and is closed. */
async function joins(round: number): Promise<void> {
  const target = new RecordingTarget({ name: 'passing', needsVa: round % 20 > 0, async: round % 30 === 0 });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  assert.ok(target.held().length >= 2);
  if (round % 20 === 0) {
    target.judge = ({ op }) => (op === 'unmap' ? new Error('stuck') : undefined);
    await failsWith('ERR_UNMAP_FAILED', handle.remove());
    await memory.dmaMappers.targetClosed(target);
  }
  await handle.remove();
  const refusing = new RecordingTarget({ name: 'refusing', needsVa: true });
  refusing.judge = new RefuseAt('map', 1).judge;
  await failsWith('ERR_MAP_FAILED', memory.dmaMappers.addDmaMapper(refusing));
}

/** A region with a file of its own comes and goes. */
async function regions(round: number): Promise<void> {
  using file = MemoryFile.create(at(4), { name: 'passing' });
  const region = await memory.regions.addRegion({ name: 'passing', range: pages(512 + (round % 5), 4) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.addMapping({ range: pages(2, 2), backing: { file, offset: at(2) }, writable: false });
  await region.mapToGuest();
  memory.write(region.range.start, Uint8Array.of(round));
  await region.removeMappings(AddressRange.of(PAGE, PAGE));
  await failsWith('ERR_OUT_OF_RANGE', region.addMapping({ range: pages(3, 2), backing: { file, offset: 0n } }));
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  await region.remove();
  // A ROM over RAM, and over private RAM, whose pages move away and back.
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(round % 2 ? 4 : 1028, 2), priority: 10 });
  await rom.addMapping({ range: pages(0, 2), backing: { file, offset: 0n }, writable: false });
  await rom.mapToGuest();
  await rom.remove();
}

async function run(rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    await moves(round);
    if (round % 10 === 0) await joins(round);
    if (round % 13 === 0) await regions(round);
    recorder.takeCalls();
  }
}

await run(WARM_UP);
const before = await held();
const rounds = Number(process.argv[2]);
await run(rounds);
const after = await held();
assert.deepEqual(recorder.breaches, []);
await memory.close();
barFile.close();
console.log(JSON.stringify({ rounds, before, after }));
