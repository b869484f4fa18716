/**
 * Devices for which the firmware demands a 1:1 mapping. The kernel's rejection has no errno of its own, so opening
 * reads /sys for the cause.
 */
import test, { type ExecutionContext } from 'ava';
import { type ErrorCode, PeerDmaError } from '../ts/index.ts';
import { type RefusalFacts, deviceFileRefused, iommuRefused } from '../ts/vfio/opening-errors.ts';
import { fakeSysfs } from './support/fake-sysfs.ts';

const BDF = '0000:04:00.0';
const BIND = 'ioctl(VFIO_DEVICE_BIND_IOMMUFD)';
const DIRECT = '0x000000007b000000 0x000000007cffffff direct\n';
const OTHERS = '0x0000000000000000 0x00000000000fffff direct-relaxable\n0x00000000fee00000 0x00000000feefffff msi\n';

function factsOf(t: ExecutionContext, reserved: string | undefined): RefusalFacts | undefined {
  const sysfs = fakeSysfs(t, {
    [BDF]: { driver: 'vfio-pci', group: 4, ...(reserved === undefined ? {} : { reserved }) },
  });
  return sysfs.refusalFacts(sysfs.device(BDF));
}

function said(errno: string, syscall: string): PeerDmaError {
  return new PeerDmaError('ERR_SYSTEM', `${errno} from ${syscall}`, { errno, syscall });
}

const REFUSALS: readonly (readonly [string, string, (facts?: RefusalFacts) => PeerDmaError, ErrorCode])[] = [
  [
    'type1, before Linux 6.6',
    'EPERM',
    (facts) => iommuRefused(BDF, said('EPERM', 'ioctl(VFIO_SET_IOMMU)'), facts),
    'ERR_NO_INTERRUPT_REMAPPING',
  ],
  [
    'type1',
    'EINVAL',
    (facts) => iommuRefused(BDF, said('EINVAL', 'ioctl(VFIO_GROUP_SET_CONTAINER)'), facts),
    'ERR_VFIO_UNSUPPORTED',
  ],
  [
    'iommufd',
    'EINVAL',
    (facts) =>
      deviceFileRefused(BDF, 0, said('EINVAL', BIND), 4, [{ bdf: BDF, driver: 'vfio-pci', iommuGroup: 4 }], facts),
    'ERR_GROUP_BUSY',
  ],
];

for (const [name, errno, refusal, otherwise] of REFUSALS) {
  test(`${name}: the firmware's 1:1 mapping is the cause if /sys has one (${errno})`, (t) => {
    const { code, message, bdf } = refusal(factsOf(t, OTHERS + DIRECT));
    t.deepEqual([code, bdf], ['ERR_UNSUPPORTED', BDF]);
    t.regex(
      message,
      /IOMMU group 4, for which .* 1:1 mapping of 0x7b000000\.\.0x7d000000 \(RMRR, IVMD\).*Update the firmware/,
    );
    t.notRegex(message, /allow_unsafe_interrupts|open already/);
  });

  test(`${name}: it is not named if /sys has none, and ranges that VFIO ignores do not count (${errno})`, (t) => {
    const { code, message } = refusal(factsOf(t, OTHERS));
    t.is(code, otherwise);
    t.notRegex(message, /1:1/);
  });

  test(`${name}: it is named as a possible cause if nothing is known (${errno})`, (t) => {
    for (const facts of [undefined, factsOf(t, undefined)]) {
      const { code, message } = refusal(facts);
      t.is(code, otherwise);
      t.regex(message, /1:1 .*RMRR, IVMD.*reserved_regions/);
    }
  });
}

test('type1: a 1:1 mapping does not cause other errors', (t) => {
  const { code, message } = iommuRefused(BDF, said('ENODEV', 'ioctl(VFIO_SET_IOMMU)'));
  t.is(code, 'ERR_VFIO_UNSUPPORTED');
  t.notRegex(message, /1:1/);
});

test('a 1:1 mapping is not the cause if the kernel gives the device to VFIO anyway', (t) => {
  const code = (iommu: 'intel' | 'amd', minor: number): ErrorCode => {
    const device = { driver: 'vfio-pci', group: 4, reserved: DIRECT, iommu };
    const sysfs = fakeSysfs(t, { [BDF]: device }, { major: 6, minor });
    const facts = sysfs.refusalFacts(sysfs.device(BDF));
    return iommuRefused(BDF, said('EPERM', 'ioctl(VFIO_SET_IOMMU)'), facts).code;
  };
  t.is(code('amd', 5), 'ERR_NO_INTERRUPT_REMAPPING');
  t.is(code('amd', 6), 'ERR_UNSUPPORTED');
  t.is(code('intel', 5), 'ERR_UNSUPPORTED');
});
