/**
 * Virtual functions of a network card that the host drives (SR-IOV).
 */
import { existsSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { functionAt, peerMatrix, readHost } from '../../ts/host.ts';
import { AddressRange } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { assertRefused, restoreDrivers, runSuccessfully, state } from './support/drivers.ts';
import { fetch, rig, send } from './support/rig.ts';

/** Not in PEERDMA_VFIO_DEVICES, as in vf-token.test.ts. */
const CARD = process.env['PEERDMA_TESTBED_IGB'];
const DRIVER = '/sys/bus/pci/drivers/igb';
/** The ids of a virtual function of an Intel 82576. Its own config space has ones there. */
const VIRTUAL_IDS = 0x10ca_8086;
const ADDRESS = 0x1_0000_0000n;
/** Memory among the registers, for messages to the card's driver (Intel 82576 datasheet, VMBMEM). */
const MESSAGE = 0x800n;

/** Binds the card to its driver until the test ends, and two virtual functions of it to VFIO. */
async function virtualFunctions(t: ExecutionContext, card: string): Promise<string[]> {
  const count = (functions: number): void =>
    writeFileSync(`/sys/bus/pci/devices/${card}/sriov_numvfs`, String(functions));
  restoreDrivers(t, card);
  t.is(await runSuccessfully(t, 'unbind', card), `${card} from vfio-pci to igb\n`);
  count(2);
  t.teardown(() => count(0));
  const functions = [0, 1].map((index) => basename(readlinkSync(`/sys/bus/pci/devices/${card}/virtfn${index}`)));
  await runSuccessfully(t, 'bind', ...functions);
  return functions;
}

function testWithCard(
  title: string,
  run: (t: ExecutionContext, card: string, functions: string[], engine: string) => Promise<void>,
): void {
  if (CARD === undefined || !existsSync(DRIVER)) {
    test.serial.skip(`${title} (needs PEERDMA_TESTBED_IGB, and a kernel with the driver igb)`, () => {});
    return;
  }
  testWith({ edu: 1 }, title, async (t, { edu: [engine = ''] }) =>
    run(t, CARD, await virtualFunctions(t, CARD), engine),
  );
}

testWithCard(
  'opens and resets a virtual function of a card that the host drives',
  async (t, card, [first = '', second = '']) => {
    const host = readHost();
    t.deepEqual(functionAt(host, card).virtualFunctions?.addresses, [first, second]);
    t.like(functionAt(host, first), { physicalFunction: card, driver: 'vfio-pci', memoryDecode: true });
    t.deepEqual(peerMatrix(host, [first, second]).cells[0]?.prerequisites, []);
    await assertRefused(t, ['bind', card], /has 2 virtual functions on, which are removed with it/);

    const { open } = await rig(t);
    const device = await open(first);
    t.is(device.config.read32(0n), VIRTUAL_IDS);
    await device.reset();
    t.is(device.config.read32(0n), VIRTUAL_IDS);
    const other = await open(second);
    await assertRefused(
      t,
      ['bind', '--force', card],
      new RegExp(`ERR_DEVICE_IN_USE.*${first}, a virtual function of ${card}`, 's'),
    );
    t.deepEqual(state(card), ['igb', undefined]);
    await other.close();
    await device.close();
  },
);

testWithCard(
  'a device does DMA to registers of a virtual function, also after its reset',
  async (t, _card, [first = ''], engine) => {
    const { memory, open, edu: openEdu } = await rig(t);
    const edu = await openEdu(engine);
    const device = await open(first);
    const [bar] = device.regions;
    if (bar === undefined) throw new Error('no BAR 0');
    const window = memory.newDeviceMemory({ name: 'bar0', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(ADDRESS);
    for (const value of [0x1234_5678, 0x0bad_cafe]) {
      const bytes = new Uint8Array(Uint32Array.of(value).buffer);
      await send(memory, edu, bytes, ADDRESS + MESSAGE);
      t.is(bar.read32(MESSAGE), value);
      t.deepEqual(await fetch(memory, edu, ADDRESS + MESSAGE, bytes.length), bytes);
      await device.reset();
    }
    await window.remove();
  },
);
