/**
 * VF tokens: the argument of open(), the form for the kernel, and the errors. /sys is a fake here.
 */
import test, { type ExecutionContext } from 'ava';
import { GuestMemory, PeerDmaError, VfioContainerManager } from '../ts/index.ts';
import { type RefusalFacts, deviceFileRefused, deviceRefused } from '../ts/vfio/opening-errors.ts';
import { nameWithToken, requireVfToken } from '../ts/vfio/vf-token.ts';
import { rejectsCode } from './support/errors.ts';
import { type FakeDevice, fakeSysfs } from './support/fake-sysfs.ts';

const TOKEN = '7f1c2a90-0b3d-4e55-9c61-d2a4b6c8e0f1';
const PHYSICAL = '0000:04:00.0';
const VIRTUAL = '0000:04:10.0';
const PLAIN = '0000:05:00.0';
const BY_GROUP = 'ioctl(VFIO_GROUP_GET_DEVICE_FD)';
const BY_FILE = 'ioctl(VFIO_DEVICE_BIND_IOMMUFD)';

function machine(driver: string): Record<string, FakeDevice> {
  return {
    [PHYSICAL]: { driver, group: 4, file: 0, sriov: true },
    [VIRTUAL]: { driver: 'vfio-pci', group: 5, file: 1, physicalFunction: PHYSICAL },
    [PLAIN]: { driver: 'vfio-pci', group: 6, file: 2 },
  };
}

function factsOf(t: ExecutionContext, driver: string, bdf: string, vfToken?: string): RefusalFacts | undefined {
  const sysfs = fakeSysfs(t, machine(driver));
  return sysfs.refusalFacts({ ...sysfs.device(bdf), vfToken });
}

/** The error for the kernel's rejection, with either back end. */
function refused(bdf: string, errno: string, syscall: string, facts?: RefusalFacts): PeerDmaError {
  const error = new PeerDmaError('ERR_DEVICE_OPEN', `${errno} from ${syscall}`, { errno, syscall });
  const member = { bdf, driver: 'vfio-pci', iommuGroup: 5 };
  return syscall === BY_GROUP ? deviceRefused(bdf, error, facts) : deviceFileRefused(bdf, 1, error, 5, [member], facts);
}

test('open rejects a token that is not a UUID, and does not repeat it', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const vfio = new VfioContainerManager(memory, {}, fakeSysfs(t, machine('vfio-pci')));
  for (const vfToken of [
    '',
    'secret',
    TOKEN.slice(1),
    `${TOKEN}0`,
    `${TOKEN}\n`,
    ` ${TOKEN}`,
    TOKEN.replaceAll('-', ''),
  ]) {
    const error = await rejectsCode(t, vfio.open(VIRTUAL, { vfToken }), 'ERR_INVALID_ARGUMENT', vfToken);
    t.false(vfToken !== '' && error.message.includes(vfToken));
  }
  for (const vfToken of [null, 5, {}, [TOKEN]]) {
    await rejectsCode(t, vfio.open(VIRTUAL, { vfToken: vfToken as never }), 'ERR_INVALID_ARGUMENT', String(vfToken));
  }
  await rejectsCode(t, vfio.open(VIRTUAL, null as never), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, vfio.open('0000:06:00.0', { vfToken: TOKEN }), 'ERR_DEVICE_NOT_FOUND');
});

test('accepts a token in capitals', (t) => {
  t.is(requireVfToken(TOKEN.toUpperCase()), TOKEN.toUpperCase());
});

test('the kernel receives the token after the address', (t) => {
  const device = { bdf: VIRTUAL, driver: 'vfio-pci', iommuGroup: 5 };
  t.is(nameWithToken(device), VIRTUAL);
  t.is(nameWithToken({ ...device, vfToken: TOKEN }), `${VIRTUAL} vf_token=${TOKEN}`);
});

for (const syscall of [BY_GROUP, BY_FILE]) {
  test(`the error for a missing token names the physical function and its driver: ${syscall}`, (t) => {
    const { code, message, bdf } = refused(VIRTUAL, 'EACCES', syscall, factsOf(t, 'vfio-pci', VIRTUAL));
    t.deepEqual([code, bdf], ['ERR_VF_TOKEN', VIRTUAL]);
    t.regex(
      message,
      /opens only with a VF token: .*virtual function of 0000:04:00\.0, whose driver is vfio-pci.*vfToken/,
    );
  });

  test(`a wrong token has another error than a missing one, and is not repeated: ${syscall}`, (t) => {
    const { code, message } = refused(VIRTUAL, 'EACCES', syscall, factsOf(t, 'vfio-pci', VIRTUAL, TOKEN));
    t.is(code, 'ERR_VF_TOKEN');
    t.regex(message, /was given another VF token/);
    t.false(message.includes(TOKEN));
  });

  test(`a physical function whose virtual functions are open needs their token: ${syscall}`, (t) => {
    const { code, message } = refused(PHYSICAL, 'EACCES', syscall, factsOf(t, 'vfio-pci', PHYSICAL));
    t.is(code, 'ERR_VF_TOKEN');
    t.regex(message, /virtual functions of it are open/);
  });

  test(`a token that a device does not take is named as the cause: ${syscall}`, (t) => {
    const unmanaged = refused(VIRTUAL, 'EINVAL', syscall, factsOf(t, 'ixgbe', VIRTUAL, TOKEN));
    t.is(unmanaged.code, 'ERR_VF_TOKEN');
    t.regex(unmanaged.message, /takes no VF token: .*0000:04:00\.0 is not bound to vfio-pci \(driver ixgbe\)/);
    const plain = refused(PLAIN, 'EINVAL', syscall, factsOf(t, 'vfio-pci', PLAIN, TOKEN));
    t.is(plain.code, 'ERR_VF_TOKEN');
    t.regex(plain.message, /it has no SR-IOV/);
  });

  test(`EINVAL of another cause is not about the token: ${syscall}`, (t) => {
    for (const bdf of [PLAIN, VIRTUAL, PHYSICAL]) {
      t.not(refused(bdf, 'EINVAL', syscall, factsOf(t, 'ixgbe', bdf)).code, 'ERR_VF_TOKEN', `${bdf} without a token`);
    }
    const physical = refused(PHYSICAL, 'EINVAL', syscall, factsOf(t, 'vfio-pci', PHYSICAL, TOKEN));
    t.not(physical.code, 'ERR_VF_TOKEN', 'a physical function takes one');
  });

  test(`without /sys, EACCES also names the token: ${syscall}`, (t) => {
    const { code, message } = refused(VIRTUAL, 'EACCES', syscall);
    t.is(code, 'ERR_VF_TOKEN');
    t.regex(message, /VF token/);
  });
}

test('a token that iommufd does not take is rejected with the needed kernel, and auto uses type1', (t) => {
  const { code, message } = refused(VIRTUAL, 'EINVAL', BY_FILE, factsOf(t, 'vfio-pci', VIRTUAL, TOKEN));
  t.is(code, 'ERR_UNSUPPORTED', 'a reason for auto to try type1');
  t.regex(message, /since Linux 6\.17/);
});

test('a file without permission is reported as that, with or without a token', (t) => {
  const facts = factsOf(t, 'vfio-pci', VIRTUAL, TOKEN);
  t.is(refused(VIRTUAL, 'EACCES', 'open(/dev/vfio/devices/vfio1)', facts).code, 'ERR_PERMISSION');
  const details = { errno: 'EACCES', syscall: 'open(/dev/vfio/5)' };
  const error = new PeerDmaError('ERR_DEVICE_OPEN', 'EACCES', details);
  t.is(deviceRefused(VIRTUAL, error, facts).code, 'ERR_DEVICE_OPEN');
});
