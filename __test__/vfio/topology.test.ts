/**
 * The matrix against real devices: what it says of a pair is what their DMA does, for every pair and BAR that DMA can be
 * tried on. An edu is the initiator; BARs with memory behind them are the targets.
 */
import test, { type ExecutionContext } from 'ava';
import { Edu } from '../../examples/devices/edu.ts';
import { type PeerCell, bridgesAbove, functionAt, peerMatrix, readHost } from '../../ts/host/index.ts';
import {
  type DeviceMemory,
  type GuestMemory,
  type MappingStatus,
  PeerDmaError,
  type VfioDevice,
  type VfioRegion,
} from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { type Devices, testWith } from './support/devices.ts';
import { type Rig, fetch, pattern, rig, send } from './support/rig.ts';

const ADDRESS = 0x1_0000_0000n;
/** VFIO's indices of BARs that are memory: ivshmem's, and the nvme's controller memory buffer. Others are registers. */
const MEMORY_BAR = 2;
const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];

/** What came of an attempt to show a BAR to the devices of `memory`. */
type Shown = 'refused' | 'not mapped' | 'mapped';

async function withBar(memory: GuestMemory, bar: VfioRegion, use: (shown: Shown) => Promise<void>): Promise<void> {
  let window: DeviceMemory;
  try {
    window = memory.newDeviceMemory({ name: `bar${bar.index}`, length: bar.length });
    await window.map({ offset: 0n, length: bar.length, backing: bar.backing() });
    await window.mapToGuest(ADDRESS);
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    return use('refused');
  }
  const states = memory
    .inspect()
    .targets.flatMap(({ mappings }) => mappings as readonly Pick<MappingStatus, 'state'>[]);
  await use(states.every(({ state }) => state === 'mapped') ? 'mapped' : 'not mapped');
  await window.unmapFromGuest();
}

/** Both ways, first and last page. */
async function dmaArrives(memory: GuestMemory, edu: Edu, bar: VfioRegion, seed: number): Promise<boolean> {
  for (const offset of [0n, bar.length - 0x1000n]) {
    bar.write(offset, new Uint8Array(Edu.BUFFER_SIZE));
    await send(memory, edu, pattern(seed), ADDRESS + offset);
    if (Buffer.compare(bar.read(offset, Edu.BUFFER_SIZE), pattern(seed)) !== 0) return false;
    const back = await fetch(memory, edu, ADDRESS + offset, Edu.BUFFER_SIZE);
    if (Buffer.compare(back, pattern(seed)) !== 0) return false;
  }
  return true;
}

async function comparePair(
  t: ExecutionContext,
  { memory }: Rig,
  cell: PeerCell,
  edu: Edu,
  peer: VfioDevice,
): Promise<void> {
  const says = `${cell.initiator} to ${cell.target}: ${cell.reasons.map(({ text }) => text).join('; ')}`;
  t.is(cell.verdict, 'host-bridge', says);
  for (const { index, problem } of cell.bars) {
    const bar = peer.regions[index];
    if (bar === undefined) throw new Error(`${peer.bdf} has no BAR ${index}`);
    await withBar(memory, bar, async (shown) => {
      t.is(
        shown === 'mapped',
        problem === undefined,
        `BAR ${index} of ${peer.bdf}: ${shown}, ${problem ?? 'no problem'}`,
      );
      if (shown !== 'mapped' || index !== MEMORY_BAR) return;
      t.true(await dmaArrives(memory, edu, bar, index + 30), says);
    });
  }
}

testWith(
  { edu: 2, ivshmem: 2, nvme: 1 },
  'the matrix says what DMA does, for every pair',
  async (t, devices: Devices) => {
    const set = await rig(t);
    const [edus, peers] = [new Map<string, Edu>(), new Map<string, VfioDevice>()];
    for (const bdf of [...devices.ivshmem, ...devices.nvme]) peers.set(bdf, await set.open(bdf));
    for (const bdf of devices.edu) edus.set(bdf, await set.edu(bdf));

    const { cells } = peerMatrix(readHost(), [...edus.keys(), ...peers.keys()]);
    t.deepEqual(
      cells.flatMap(({ needs }) => needs.map(({ text }) => text)),
      [],
      'nothing is due before: the devices are open',
    );
    let tried = 0;
    for (const cell of cells) {
      const [edu, peer] = [edus.get(cell.initiator), peers.get(cell.target)];
      if (edu === undefined || peer === undefined) continue;
      await comparePair(t, set, cell, edu, peer);
      tried++;
    }
    t.is(tried, 6, 'two initiators, three targets');
  },
);

testWith(
  { ivshmem: 1, edu: 1 },
  'memory decode that is off is due before, and is what keeps a BAR out',
  async (t, devices) => {
    const set = await rig(t);
    const [initiator = '', target = ''] = [devices.edu[0], devices.ivshmem[0]];
    const edu = await set.edu(initiator);
    const peer = await set.open(target);
    const bar = peer.regions[MEMORY_BAR];
    if (bar === undefined) throw new Error(`${target} has no BAR ${MEMORY_BAR}`);
    const [low = 0, high = 0] = peer.config.read(4n, 2);
    const needs = () => peerMatrix(readHost(), [initiator, target]).cells[0]?.needs.map(({ code }) => code);

    peer.config.write(4n, Uint8Array.of(low & ~2, high));
    t.deepEqual(needs(), ['decode-off']);
    await withBar(set.memory, bar, async (shown) => {
      t.is(shown, 'not mapped');
    });
    peer.config.write(4n, Uint8Array.of(low | 2, high));
    t.deepEqual(needs(), []);
    await withBar(set.memory, bar, async (shown) => {
      t.is(shown, 'mapped');
      t.true(await dmaArrives(set.memory, edu, bar, 40));
    });
  },
);

const notViable = 'a group that the matrix calls not viable is one';
if (entangled === undefined) {
  test.serial.skip(`${notViable} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
} else {
  testWith({ ivshmem: 1 }, notViable, async (t, devices) => {
    const target = devices.ivshmem[0] ?? '';
    const [cell] = peerMatrix(readHost(), [entangled, target]).cells;
    t.deepEqual(
      cell?.needs.map(({ code }) => code),
      ['group-not-viable'],
    );
    const { open } = await rig(t);
    await rejectsCode(t, open(entangled), 'ERR_GROUP_NOT_VIABLE');
  });
}

testWith({ ivshmem: 2, nvme: 1 }, 'what /sys says of the devices is what VFIO gives', async (t, devices) => {
  const { open } = await rig(t);
  const host = readHost();
  t.deepEqual(host.findings, []);
  for (const bdf of [...devices.ivshmem, ...devices.nvme]) {
    const found = functionAt(host, bdf);
    const device = await open(bdf);
    t.is(found.driver, 'vfio-pci');
    t.is(found.configBytes, Number(device.config.length), 'all of config space, for root');
    for (const { index, length, kind } of found.bars.filter(({ kind: each }) => each !== 'rom')) {
      t.is(device.regions[index]?.length, length, `${bdf} ${kind} ${index}`);
    }
  }
  const behind = functionAt(host, devices.ivshmem[1] ?? '');
  t.is(bridgesAbove(host, behind)[0]?.portType, 'root-port');
});
