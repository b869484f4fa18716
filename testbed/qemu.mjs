// QEMU's command line: the machine, its IOMMU, its devices and the folders it shares with the host.
import { join } from 'node:path';
import { TestbedError } from './errors.mjs';
import { capture, findProgram } from './process.mjs';

const PROGRAM = 'qemu-system-x86_64';

/**
 * Finds QEMU on the PATH.
 * @returns {string}
 * @throws {TestbedError} that says what to install
 */
export function findQemu() {
  const found = findProgram(PROGRAM);
  if (found !== undefined) return found;
  throw new TestbedError(
    `the testbed needs ${PROGRAM}, which isn't there: apt-get install qemu-system-x86 (.ci/run does it; on Debian 12 bookworm-backports' is the better one)`,
  );
}

/**
 * Whether this QEMU has the network card igb, as 8.0 and later do: Debian 12's own 7.2 has not.
 * @param {string} qemu path of QEMU
 * @returns {Promise<boolean>}
 */
export async function hasIgb(qemu) {
  return (await capture(qemu, ['-device', 'help'], { seconds: 60 })).includes('name "igb"');
}

/**
 * A path inside an option of QEMU, where a comma ends a value.
 * @param {string} path
 */
const inOption = (path) => path.replaceAll(',', ',,');

/** @typedef {[option: string, value: string]} Option */

/**
 * A folder of the host as a 9p file system of the guest.
 *
 * @param {string} tag the guest's name for it
 * @param {string} path
 * @param {string} [more] further properties
 * @returns {Option[]}
 */
const folder = (tag, path, more = '') => [
  ['fsdev', `local,id=${tag},path=${inOption(path)},security_model=none${more}`],
  ['device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
];

/**
 * What stands on the kernel's command line. Interrupts of devices stay remapped (no allow_unsafe_interrupts); CPU
 * mitigations cost much in emulation and prove nothing here. no_timer_check: at its start the kernel looks whether some
 * ticks come in time, and panics if not; on a loaded machine they needn't.
 */
const KERNEL_LINE =
  'console=ttyS0 loglevel=7 panic=-1 intel_iommu=on,sm_off random.trust_cpu=on tsc=reliable no_timer_check mitigations=off nokaslr';

/**
 * Both processors are emulated by one thread. With a thread for each (QEMU 7 to 11) one may be in an access to a device
 * while the other moves a BAR: the access then goes astray, and the guest waits for ever for what its device was never
 * told, or QEMU aborts (`iotlb_to_section: Assertion …`). Tests of this package move BARs all the time. Measurements that
 * move none have a thread for each: what two processors do at a time would be done one after the other.
 */
const accelerator = (/** @type {boolean} */ threadEach) => `tcg,thread=${threadEach ? 'multi' : 'single'},tb-size=256`;

/**
 * QEMU's arguments.
 *
 * @param {object} options
 * @param {string} options.image kernel
 * @param {string} options.initramfs
 * @param {boolean} options.igb whether the machine has an igb, a network card with virtual functions
 * @param {string} options.memory as QEMU's -m takes it
 * @param {boolean} options.remapping whether the IOMMU remaps interrupts
 * @param {number} options.addressBits of the addresses that the IOMMU translates
 * @param {boolean} options.threadEach whether each processor is emulated by a thread of its own
 * @param {string} options.control folder for what host and guest tell each other; the console and the nvme's disk lie
 *   there too
 * @param {string | undefined} options.share folder that the command may write to
 * @returns {string[]}
 */
export function qemuArguments({ image, initramfs, igb, memory, remapping, addressBits, threadEach, control, share }) {
  /** @type {Option[]} */
  const card = [
    // Virtual functions (SR-IOV) need a port above them that forwards alternative routing ids.
    ['device', 'pcie-root-port,id=port1,chassis=2,slot=2,addr=0xa'],
    ['device', 'igb,bus=port1'],
  ];
  /** @type {Option[]} */
  const options = [
    ['display', 'none'],
    // The IOMMU does not go with an interrupt chip inside KVM; nor is there KVM where these guests have to run.
    ['machine', 'q35,kernel-irqchip=off'],
    ['accel', accelerator(threadEach)],
    ['cpu', 'max'],
    ['smp', '2'],
    ['m', memory],
    ['chardev', `file,id=console,path=${inOption(join(control, 'console'))}`],
    ['serial', 'chardev:console'],
    // Ahead of the devices: those before it would not be behind it.
    ['device', `intel-iommu,intremap=${remapping ? 'on' : 'off'},aw-bits=${addressBits}`],
    ['device', 'edu,addr=4,dma_mask=0xffffffffffffffff'],
    ['device', 'edu,addr=5,dma_mask=0xffffffffffffffff'],
    ['object', 'memory-backend-memfd,id=ivshmem0,size=16M,share=on'],
    ['device', 'ivshmem-plain,memdev=ivshmem0,addr=6'],
    ['device', 'pcie-root-port,id=port0,chassis=1,slot=1,addr=7'],
    ['object', 'memory-backend-memfd,id=ivshmem1,size=16M,share=on'],
    ['device', 'ivshmem-plain,memdev=ivshmem1,bus=port0'],
    ['drive', `file=${inOption(join(control, 'nvme.img'))},if=none,id=disk0,format=raw,cache=unsafe`],
    ['device', 'nvme,drive=disk0,serial=testbed,cmb_size_mb=4,addr=8'],
    // Behind a conventional bridge devices can't be told apart: one group for an edu and a device that the guest drives.
    ['device', 'pcie-pci-bridge,id=bridge0,addr=9'],
    ['device', 'edu,bus=bridge0,addr=1,dma_mask=0xffffffffffffffff'],
    ['device', 'virtio-rng-pci,bus=bridge0,addr=2'],
    ...(igb ? card : []),
    ...folder('root', '/', ',readonly=on,multidevs=remap'),
    ...folder('control', control),
    ...(share === undefined ? [] : folder('share', share)),
    ['kernel', image],
    ['initrd', initramfs],
    ['append', KERNEL_LINE],
  ];
  const flags = ['-nodefaults', '-no-user-config', '-no-reboot'];
  return [...flags, ...options.flatMap(([option, value]) => [`-${option}`, value])];
}
