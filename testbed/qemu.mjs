// QEMU's command line: the machine, its IOMMU, its devices and the folders it shares with the host.
import { join } from 'node:path';
import { TestbedError } from './errors.mjs';
import { capture, findProgram } from './process.mjs';

const PROGRAM = 'qemu-system-x86_64';

/**
 * Finds QEMU on the PATH.
 * @returns {string}
 * @throws {TestbedError} with the command that installs it
 */
export function findQemu() {
  const found = findProgram(PROGRAM);
  if (found !== undefined) return found;
  throw new TestbedError(
    `${PROGRAM} is missing. Install it: apt-get install qemu-system-x86 (on Debian 12, better from bookworm-backports)`,
  );
}

/**
 * Whether this QEMU supports the network card igb, as 8.0 and later do, but not Debian 12's own 7.2.
 * @param {string} qemu the path of QEMU
 * @returns {Promise<boolean>}
 */
export async function hasIgb(qemu) {
  return (await capture(qemu, ['-device', 'help'], { seconds: 60 })).includes('name "igb"');
}

/**
 * Escapes a path for an option of QEMU, in which a comma ends a value.
 * @param {string} path
 */
const inOption = (path) => path.replaceAll(',', ',,');

/** @typedef {[option: string, value: string]} Option */

/**
 * Shares a folder of the host as a 9p file system of the guest.
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
 * The kernel's command line. Device interrupts stay remapped (no allow_unsafe_interrupts); CPU mitigations are slow
 * in emulation and irrelevant here. no_timer_check: at its start the kernel checks that some ticks come in time, and
 * panics if they don't, as on a loaded machine.
 */
const KERNEL_LINE =
  'console=ttyS0 loglevel=7 panic=-1 intel_iommu=on,sm_off random.trust_cpu=on tsc=reliable no_timer_check mitigations=off nokaslr';

/** Lets VFIO make groups for devices without an IOMMU. Otherwise vfio-pci does not bind to them. */
const WITHOUT_IOMMU = 'vfio.enable_unsafe_noiommu_mode=1';

/**
 * Both processors are emulated by one thread. With a thread for each (QEMU 7 to 11) one can access a device while the
 * other moves a BAR: the access is then lost, and the guest waits for ever, or QEMU aborts (`iotlb_to_section:
 * Assertion …`). Tests of this package move BARs all the time. Measurements that move none use a thread for each
 * processor: otherwise parallel work would run serially.
 */
const accelerator = (/** @type {boolean} */ threadEach) => `tcg,thread=${threadEach ? 'multi' : 'single'},tb-size=512`;

/**
 * QEMU emulates `rep movsb` byte by byte. Without the features that recommend it, the kernel and the C library copy and
 * clear memory by words: tests with much memory take 20 % less time.
 */
const PROCESSOR = 'max,erms=off,fsrm=off';

/**
 * Returns QEMU's arguments.
 *
 * @param {object} options
 * @param {string} options.image the kernel
 * @param {string} options.initramfs
 * @param {boolean} options.igb whether the machine has an igb, a network card with virtual functions
 * @param {string} options.memory the value of QEMU's -m
 * @param {boolean} options.iommu whether the machine has an IOMMU
 * @param {boolean} options.remapping whether the IOMMU remaps interrupts
 * @param {number} options.addressBits the width of the addresses that the IOMMU translates
 * @param {string} options.processors the number of processors
 * @param {boolean} options.threadEach whether a separate thread emulates each processor
 * @param {string} options.control the folder shared by host and guest; it also contains the console and the nvme's
 *   disk
 * @param {string | undefined} options.share the folder that the command can write
 * @returns {string[]}
 */
export function qemuArguments(options) {
  const { image, initramfs, igb, memory, iommu, remapping, addressBits, processors, threadEach, control, share } =
    options;
  /** @type {Option[]} */
  const card = [
    // Virtual functions (SR-IOV) require a port above them that forwards alternative routing ids.
    ['device', 'pcie-root-port,id=port1,chassis=2,slot=2,addr=0xa'],
    ['device', 'igb,bus=port1'],
  ];
  /** @type {Option[]} */
  const translation = [['device', `intel-iommu,intremap=${remapping ? 'on' : 'off'},aw-bits=${addressBits}`]];
  /** @type {Option[]} */
  const machine = [
    ['display', 'none'],
    // The IOMMU does not work with KVM's interrupt chip; these guests run without KVM.
    ['machine', 'q35,kernel-irqchip=off'],
    ['accel', accelerator(threadEach)],
    ['cpu', PROCESSOR],
    ['smp', processors],
    ['m', memory],
    ['chardev', `file,id=console,path=${inOption(join(control, 'console'))}`],
    ['serial', 'chardev:console'],
    // Before the devices: the IOMMU does not cover those that come before it.
    ...(iommu ? translation : []),
    ['device', 'edu,addr=4,dma_mask=0xffffffffffffffff'],
    ['device', 'edu,addr=5,dma_mask=0xffffffffffffffff'],
    ['object', 'memory-backend-memfd,id=ivshmem0,size=16M,share=on'],
    ['device', 'ivshmem-plain,memdev=ivshmem0,addr=6'],
    ['device', 'pcie-root-port,id=port0,chassis=1,slot=1,addr=7'],
    ['object', 'memory-backend-memfd,id=ivshmem1,size=16M,share=on'],
    ['device', 'ivshmem-plain,memdev=ivshmem1,bus=port0'],
    ['drive', `file=${inOption(join(control, 'nvme.img'))},if=none,id=disk0,format=raw,cache=unsafe`],
    ['device', 'nvme,drive=disk0,serial=testbed,cmb_size_mb=4,addr=8'],
    // Devices behind a conventional bridge share a group: here an edu and a device that the guest drives.
    ['device', 'pcie-pci-bridge,id=bridge0,addr=9'],
    ['device', 'edu,bus=bridge0,addr=1,dma_mask=0xffffffffffffffff'],
    ['device', 'virtio-rng-pci,bus=bridge0,addr=2'],
    ...(igb ? card : []),
    ...folder('root', '/', ',readonly=on,multidevs=remap'),
    ...folder('control', control),
    ...(share === undefined ? [] : folder('share', share)),
    ['kernel', image],
    ['initrd', initramfs],
    ['append', iommu ? KERNEL_LINE : `${KERNEL_LINE} ${WITHOUT_IOMMU}`],
  ];
  const flags = ['-nodefaults', '-no-user-config', '-no-reboot'];
  return [...flags, ...machine.flatMap(([option, value]) => [`-${option}`, value])];
}
