/**
 * The effects of a device's DMA. It accesses mapped memory, BARs of other devices, and BARs whose device is disabled,
 * in a low-power state, or is reset.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, type DeviceRegion, type DmaMapRequest, type PhysicalFunction } from '../../ts/index.ts';
import { AT, type Declare, type DeviceRig, Lender, PAGE, at, cleaning, fileRequest, refused, requests } from './rig.ts';

const COMMAND = 4n;
const MEMORY = 0x2;
const LENGTH = 256;

/** Distinct bytes. */
function pattern(seed: number): Uint8Array {
  return Uint8Array.from({ length: LENGTH }, (_, index) => (index * 31 + seed * 101 + 1) & 0xff);
}

function decode({ config }: PhysicalFunction, on: boolean): void {
  const [low = 0, high = 0] = config.read(COMMAND, 2);
  config.write(COMMAND, Uint8Array.of(on ? low | MEMORY : low & ~MEMORY, high));
}

function memoryOf({ bdf, regions }: PhysicalFunction): DeviceRegion {
  const bar = regions[2];
  if (bar === undefined) throw new Error(`${bdf} has no BAR 2`);
  return bar;
}

/** A request for part of the peer's BAR. */
async function barRequest({ memory, peer }: DeviceRig, offset: bigint, length: bigint): Promise<DmaMapRequest> {
  const lender = await Lender.of(memory);
  return lender.lend(memoryOf(peer).backing(offset), length, { kind: 'device' });
}

/** Declares the suite. Each test leaves the target empty and the peer decoding, also if it fails. */
export function deviceBehaviours(declareTest: Declare<DeviceRig>): void {
  const declare = cleaning<DeviceRig>((title, run) =>
    declareTest(title, async (t, rig) => {
      decode(rig.peer, true);
      memoryOf(rig.peer).write(0n, new Uint8Array(8192));
      try {
        await run(t, rig);
      } finally {
        decode(rig.peer, true);
      }
    }),
  );
  /** Whether bytes that a device sends there arrive in the BAR at an offset. */
  const reaches = async (rig: DeviceRig, iova: bigint, offset: bigint, seed: number): Promise<boolean> => {
    const bar = memoryOf(rig.peer);
    const before = bar.read(offset, LENGTH);
    await rig.dmaWrite(iova, pattern(seed));
    const after = bar.read(offset, LENGTH);
    if (Buffer.compare(after, pattern(seed)) === 0) return true;
    if (Buffer.compare(after, before) !== 0) throw new Error('part of it arrived');
    return false;
  };

  declare('memory of this process and files receive DMA, and are unmapped', async (t, rig) => {
    const { target, memory } = rig;
    const [own] = await requests(memory, PAGE);
    const { file, request } = await fileRequest(t, memory, 2n * PAGE);
    await target.mapDma(at(own, AT));
    await target.mapDma(at(request, AT + 4n * PAGE));
    await rig.dmaWrite(AT + 16n, pattern(1));
    t.deepEqual(own?.hostMemory?.read(16n, LENGTH), pattern(1));
    await rig.dmaWrite(AT + 5n * PAGE, pattern(2));
    t.deepEqual(file.read(PAGE, LENGTH), pattern(2));
    file.write(0n, pattern(3));
    t.deepEqual(await rig.dmaRead(AT + 4n * PAGE, LENGTH), pattern(3));
    await target.unmapDma(AddressRange.of(AT, 8n * PAGE));
    await rig.dmaWrite(AT + 5n * PAGE, pattern(4));
    t.deepEqual(file.read(PAGE, LENGTH), pattern(2), 'not reachable');
    await target.mapDma(at(request, AT));
    await rig.dmaWrite(AT, pattern(5));
    t.deepEqual(file.read(0n, LENGTH), pattern(5), 'at another address');
  });

  declare('a read-only mapping rejects DMA writes', async (t, rig) => {
    const { file, request } = await fileRequest(t, rig.memory, PAGE);
    file.write(0n, pattern(6));
    await rig.target.mapDma({ ...at(request, AT), writable: false });
    t.deepEqual(await rig.dmaRead(AT, LENGTH), pattern(6));
    await rig.dmaWrite(AT, pattern(7));
    t.deepEqual(file.read(0n, LENGTH), pattern(6));
  });

  declare('a device reaches another device’s BAR, and parts of it', async (t, rig) => {
    const bar = memoryOf(rig.peer);
    await rig.target.mapDma(at(await barRequest(rig, 0n, bar.length), AT));
    t.true(await reaches(rig, AT + PAGE, PAGE, 8));
    bar.write(bar.length - PAGE, pattern(9));
    t.deepEqual(await rig.dmaRead(AT + bar.length - PAGE, LENGTH), pattern(9));
    await rig.target.unmapDma(AddressRange.of(AT, bar.length));
    t.false(await reaches(rig, AT + PAGE, PAGE, 10));
    const part = await barRequest(rig, PAGE, PAGE);
    await rig.target.mapDma(at(part, AT));
    await rig.target.mapDma(at(part, AT + 2n * PAGE));
    t.true(await reaches(rig, AT, PAGE, 11));
    t.true(await reaches(rig, AT + 2n * PAGE, PAGE, 12), 'the same part a second time');
    t.false(await reaches(rig, AT + PAGE, 2n * PAGE, 13), 'nothing beyond it');
  });

  declare('a BAR that does not decode is rejected, and mapped once it does', async (t, rig) => {
    const request = at(await barRequest(rig, 0n, 2n * PAGE), AT);
    decode(rig.peer, false);
    const error = await refused(t, () => rig.target.mapDma(request), 'ERR_MEMORY_FAULT', [rig.rules.deviceOff]);
    t.regex(error.message, /memory decode/);
    decode(rig.peer, true);
    await rig.target.mapDma(request);
    t.true(await reaches(rig, AT, 0n, 14));
  });

  /** An event of the device whose BAR is mapped. */
  const goesThrough = (
    what: string,
    event: (t: ExecutionContext, peer: PhysicalFunction) => Promise<void>,
    { takesBack = false } = {},
  ): void =>
    declare(`a mapped BAR whose device ${what} has the state of the rules`, async (t, rig) => {
      const { target, rules } = rig;
      const before = at(await barRequest(rig, 0n, 2n * PAGE), AT);
      await target.mapDma(before);
      t.true(await reaches(rig, AT, 0n, 15));
      t.false(target.isRevoked?.(before.range) ?? false);
      await event(t, rig.peer);
      decode(rig.peer, true);
      const request = await (await Lender.of(rig.memory)).now(before);
      const stays = rules.barAfterDeviceOff === 'mapped';
      t.is(target.isRevoked?.(request.range) ?? false, !stays);
      // A simulated mapping has no hold on memory whose lease the reset ended.
      if (!stays || !takesBack || rig.keepsLentMemory) t.is(await reaches(rig, AT, 0n, 16), stays);
      t.is(rig.count(), 1, 'its addresses are still occupied');
      await refused(t, () => target.mapDma(request), 'ERR_IOVA_OVERLAP', ['EEXIST']);
      await target.unmapDma(request.range);
      await target.mapDma(request);
      t.false(target.isRevoked?.(request.range) ?? false);
      t.true(await reaches(rig, AT, 0n, 17), 'mapped anew');
    });

  goesThrough('stops decoding memory, and decodes again,', async (_, peer) => decode(peer, false));
  const reset = async (_: ExecutionContext, peer: PhysicalFunction): Promise<void> => {
    try {
      await peer.reset();
    } catch {
      await peer.hotReset([]);
    }
  };
  goesThrough('is reset', reset, { takesBack: true });

  declare('DMA to a BAR without decode does not reach it', async (t, rig) => {
    await rig.target.mapDma(at(await barRequest(rig, 0n, PAGE), AT));
    const bar = memoryOf(rig.peer);
    bar.write(0n, pattern(18));
    decode(rig.peer, false);
    await rig.dmaWrite(AT, pattern(19));
    decode(rig.peer, true);
    t.deepEqual(bar.read(0n, LENGTH), pattern(18));
  });
}
