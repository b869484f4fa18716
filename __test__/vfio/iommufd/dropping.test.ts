/**
 * Handles that are dropped, in every order. An address space holds a mapping of a BAR, the mapping holds the device,
 * the device its attachment, and the attachment the address space. When all are dropped, nothing is open and nothing is
 * pinned.
 */
import { NativeIommufd, type NativeIoas, NativeMemoryFile, NativeVfioDevice } from '#native';
import { isDeepStrictEqual } from 'node:util';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { shows } from '../support/exposed-memory.ts';
import { collectGarbage, nativeEdu } from '../support/native-rig.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { ExposedSpace, PRIVATE, isSame, read } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, mapIntoAsync, unmapFromAsync, words } from '../support/native-calls.ts';
import { IoasRig, fileNumberOf } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';

const IOVA = 0x1000_0000n;
const BAR = 0x1_0000_0000n;
const LENGTH = 0x10_0000n;
const PAGE = 0x1000n;
const BYTES = Edu.BUFFER_SIZE;

type Name = 'iommufd' | 'ioas' | 'engine' | 'peer';

/** The handles that are not dropped yet. */
interface Kept {
  iommufd?: NativeIommufd;
  ioas?: NativeIoas;
  engine?: NativeVfioDevice;
  peer?: NativeVfioDevice;
  /** Dropped with the engine, which it refers to. */
  edu?: Edu;
  /** Another descriptor of the mapped file. */
  file: NativeMemoryFile;
}

/** Memory of a reservation, a file and the peer's BAR, and an engine whose buffer has a pattern. */
async function setUp(engineBdf: string, peerBdf: string): Promise<Kept> {
  const iommufd = NativeIommufd.open();
  const ioas = iommufd.newIoas();
  const open = (bdf: string) => NativeVfioDevice.openByFileAsync(bdf, fileNumberOf(bdf), iommufd);
  const [engine, peer] = [await open(engineBdf), await open(peerBdf)];
  for (const device of [engine, peer]) await device.attach(ioas);
  const { file, reservation } = placedFile(LENGTH);
  const { fileOffset = 0n, length = 0n } = peer.regionInfo(2) ?? {};
  mapInto(
    ioas,
    reservation,
    [file, peer.memoryFile()],
    words(byPlace(IOVA, LENGTH), byFile(IOVA + LENGTH, LENGTH), byFile(BAR, length, { which: 1, offset: fileOffset })),
  );
  const edu = nativeEdu(engineBdf, engine);
  const observer = NativeMemoryFile.fromFd(file.fd);
  observer.write(0n, pattern(3));
  await edu.load(IOVA, BYTES);
  return { iommufd, ioas, engine, peer, edu, file: observer };
}

/** The open files and the memory of this process while only these handles are kept. */
function expected({ iommufd, ioas, engine, peer }: Kept) {
  const peerOpen = peer !== undefined || ioas !== undefined; // the address space has its BAR
  const devices = Number(engine !== undefined) + Number(peerOpen);
  return {
    iommufd: Number(iommufd !== undefined || ioas !== undefined || devices > 0),
    devices,
    dmaBufs: Number(peerOpen),
    lent: ioas !== undefined,
  };
}

function found(): ReturnType<typeof expected> {
  const files = openVfioFiles();
  const count = (pattern: RegExp) => files.filter((file) => pattern.test(file)).length;
  return {
    iommufd: count(/\/dev\/iommu/),
    devices: count(/\/vfio\/devices\/|vfio-device/),
    dmaBufs: count(/dmabuf/),
    lent: shows('memfd:placed', LENGTH),
  };
}

/** Collects garbage, and checks that the objects of these handles remain, and no others. */
async function assertOnly(t: ExecutionContext, kept: Kept, what: string): Promise<void> {
  const due = expected(kept);
  await collectGarbage(() => isDeepStrictEqual(found(), due));
  t.deepEqual(found(), due, what);
  t.is(await pinnedAtRest(3), kept.ioas === undefined ? 0 : Number((2n * LENGTH) / PAGE), what);
}

/** While there is an engine: its bytes arrive in mapped memory, and nowhere else. */
async function strike(t: ExecutionContext, { edu, ioas, file }: Kept, what: string): Promise<void> {
  if (edu === undefined) return;
  file.write(0n, new Uint8Array(Number(LENGTH)));
  await edu.store(IOVA + LENGTH + 0x3000n, BYTES);
  const all = new Uint8Array(Number(LENGTH));
  if (ioas !== undefined) all.set(pattern(3), 0x3000);
  t.true(isSame(read(file, 0n, all.length), all), what);
}

function* orders(names: readonly Name[]): Generator<Name[]> {
  if (names.length === 0) yield [];
  for (const name of names) for (const rest of orders(names.filter((one) => one !== name))) yield [name, ...rest];
}

testWith(
  { edu: 1, ivshmem: 1 },
  'handles are dropped in every order, and each object lasts as long as it is needed',
  async (t, { edu: [engine = ''], ivshmem: [peer = ''] }) => {
    t.timeout(300_000);
    const witnesses = new Witnesses();
    for (const order of orders(['iommufd', 'ioas', 'engine', 'peer'])) {
      const kept = await setUp(engine, peer);
      await assertOnly(t, kept, 'at first'); // without the reservation and the device's file
      for (const [index, name] of order.entries()) {
        const what = order.slice(0, index + 1).join(', ');
        delete kept[name];
        if (name === 'engine') delete kept.edu;
        await assertOnly(t, kept, `without ${what}`);
        await strike(t, kept, `without ${what}`);
      }
      t.deepEqual(openVfioFiles(), []);
      witnesses.add();
    }
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'iommufd: handles that are all dropped at once leave nothing open',
  async (t, { edu: [engine = ''], ivshmem: [peer = ''] }) => {
    const witnesses = new Witnesses();
    const drop = async (): Promise<void> => {
      const rig = new IoasRig();
      for (const bdf of [engine, peer]) await rig.join(bdf);
      const exposed = new ExposedSpace(rig, engine);
      t.true((await pinnedAtRest(1)) > 0);
      exposed.edu.store(IOVA, BYTES).catch(() => {}); // which does not end
      // Calls in progress hold the objects that they need until they end.
      const { file, reservation } = placedFile(4n << 20n);
      mapIntoAsync(rig.ioas, reservation, [file], words(byPlace(1n << 33n, 4n << 20n))).catch(() => {});
      unmapFromAsync(rig.ioas, PRIVATE.iova, PRIVATE.length).catch(() => {}); // not the BAR, which closes the cycle
      rig.devices[0]?.detach().catch(() => {});
      rig.devices[0]?.attach(rig.ioas).catch(() => {});
    };
    await drop();
    for (let round = 0; round < 3; round++) await collectGarbage();
    t.deepEqual(openVfioFiles(), []);
    t.is(await pinnedAtRest(), 0);
    for (let round = 0; round < 8; round++) witnesses.add();
    const again = await ExposedSpace.open(t, engine, peer);
    await again.carry(t, 'opened again');
    t.is(witnesses.changed, 0);
  },
);
