/**
 * VF tokens on the kernel. The physical function of a card with SR-IOV is bound to vfio-pci, and its virtual functions
 * open beside it.
 */
import { readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { peerMatrix, readHost } from '../../ts/host.ts';
import { GuestMemory, type VfioContainerManager } from '../../ts/index.ts';
import { diagnose } from '../../ts/host.ts';
import { rejectsCode } from '../support/errors.ts';
import { newManager } from './support/backend.ts';
import { testWith } from './support/devices.ts';

/**
 * The card with SR-IOV. It is not in PEERDMA_VFIO_DEVICES: its virtual functions would appear and disappear under other
 * tests.
 */
const CARD = process.env['PEERDMA_TESTBED_IGB'];
const [TOKEN, OTHER] = ['7f1c2a90-0b3d-4e55-9c61-d2a4b6c8e0f1', '0e2b8a77-93f2-4d7a-8a55-6c0a4f7f5b12'] as const;
/** The IDs of the virtual function of an Intel 82576. */
const VIRTUAL_IDS = 0x10ca_8086;

interface Card {
  readonly physical: string;
  readonly virtual: string;
  /** A separate container manager, as another process has. */
  user(): VfioContainerManager;
}

/** Enables virtual functions until the test ends. */
async function cardOf(t: ExecutionContext, physical: string): Promise<Card> {
  const count = (functions: number): void =>
    writeFileSync(`/sys/bus/pci/devices/${physical}/sriov_numvfs`, String(functions));
  writeFileSync('/sys/module/vfio_pci/parameters/enable_sriov', 'Y');
  count(2);
  const memory = await GuestMemory.create();
  const managers: VfioContainerManager[] = [];
  t.teardown(async () => {
    for (const manager of managers) await manager.close();
    await memory.close();
    count(0);
  });
  return {
    physical,
    virtual: basename(readlinkSync(`/sys/bus/pci/devices/${physical}/virtfn0`)),
    user: () => {
      const manager = newManager(memory);
      managers.push(manager);
      return manager;
    },
  };
}

function testWithCard(title: string, run: (t: ExecutionContext, card: Card) => Promise<void>): void {
  if (CARD === undefined) {
    test.serial.skip(
      `${title} (needs PEERDMA_TESTBED_IGB; npm test runs it in the testbed, with QEMU 8.0 or later)`,
      () => {},
    );
    return;
  }
  test.serial(title, async (t) => run(t, await cardOf(t, CARD)));
}

testWithCard('a virtual function opens only with the token of its physical function', async (t, card) => {
  const { physical, virtual } = card;
  const owner = card.user();
  const device = await owner.open(physical);
  device.setVfToken(TOKEN);
  const user = card.user();
  const missing = await rejectsCode(t, user.open(virtual), 'ERR_VF_TOKEN');
  t.like(missing, { errno: 'EACCES', bdf: virtual });
  t.true(
    missing.message.includes(`it is a virtual function of ${physical}, whose driver is vfio-pci`),
    missing.message,
  );
  const wrong = await rejectsCode(t, user.open(virtual, { vfToken: OTHER }), 'ERR_VF_TOKEN');
  t.regex(wrong.message, /was given another VF token/);
  const opened = await user.open(virtual, { vfToken: TOKEN });
  t.is(opened.config.read32(0n), VIRTUAL_IDS);
  device.setVfToken(OTHER);
  await opened.close();
  await rejectsCode(t, user.open(virtual, { vfToken: TOKEN }), 'ERR_VF_TOKEN', 'the token was replaced');
});

testWithCard('a physical function opens with the token of its virtual functions while one is open', async (t, card) => {
  const { physical, virtual } = card;
  const owner = card.user();
  const first = await owner.open(physical, { vfToken: TOKEN });
  await first.close();
  const opened = await card.user().open(virtual, { vfToken: TOKEN });
  const missing = await rejectsCode(t, owner.open(physical), 'ERR_VF_TOKEN');
  t.regex(missing.message, /virtual functions of it are open/);
  await rejectsCode(t, owner.open(physical, { vfToken: OTHER }), 'ERR_VF_TOKEN');
  const again = await owner.open(physical, { vfToken: TOKEN });
  await again.close();
  await opened.close();
  await (await owner.open(physical, { vfToken: OTHER })).close();
  await rejectsCode(
    t,
    card.user().open(virtual, { vfToken: TOKEN }),
    'ERR_VF_TOKEN',
    'the old token is not accepted any more',
  );
});

testWithCard('the doctor and the matrix name the token before a device is opened', async (t, card) => {
  const { physical, virtual } = card;
  const token = async (address: string): Promise<string | undefined> => {
    const [device] = (await diagnose({ devices: [address] })).devices;
    return device?.findings.find(({ id }) => id === 'vf-token')?.text;
  };
  t.regex((await token(virtual)) ?? '', /it opens only with the VF token/);
  const [cell] = peerMatrix(readHost(), [virtual, physical]).cells;
  t.deepEqual(
    cell?.prerequisites.map(({ code }) => code),
    ['vf-token'],
  );
  t.is(await token(physical), undefined);
  await card.user().open(physical, { vfToken: TOKEN });
  await card.user().open(virtual, { vfToken: TOKEN });
  t.regex((await token(physical)) ?? '', new RegExp(`${virtual}, a virtual function of ${physical}, is open in`));
});

testWith({ any: 1 }, 'a device without SR-IOV takes no token', async (t, { any: [bdf = ''] }) => {
  const memory = await GuestMemory.create();
  const manager = newManager(memory);
  t.teardown(async () => {
    await manager.close();
    await memory.close();
  });
  const { message } = await rejectsCode(t, manager.open(bdf, { vfToken: TOKEN }), 'ERR_VF_TOKEN');
  t.regex(message, /takes no VF token: it has no SR-IOV/);
  await manager.open(bdf);
  t.pass();
});
