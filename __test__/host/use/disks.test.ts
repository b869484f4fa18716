/**
 * The disks and file systems for which the host uses a function.
 */
import test from 'ava';
import { block, machineOf, mounts, uses } from './support.ts';

const PCI = `
host 0000:00
  02.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
  03.0 1b36:0010 endpoint class=010802 group=2 driver=nvme
  14.0 8086:a0ed class=0c0330 group=3 driver=xhci_hcd
  17.0 8086:a102 class=010601 group=4 driver=ahci
  18.0 1af4:1042 class=010000 group=5 driver=virtio-pci
  1c.0 8086:a110 root-port bus=01-01 group=6 driver=pcieport
    00.0 1000:0072 endpoint class=010700 group=7 driver=mpt3sas
`;
const NVME0 = 'pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1';
const NVME1 = 'pci0000:00/0000:00:03.0/nvme/nvme1/nvme1n1';

test('finds the mounts of a partition', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', NVME0) +
      block('259:1', `${NVME0}/nvme0n1p1`, 'partition = 1') +
      block('259:2', `${NVME0}/nvme0n1p2`, 'partition = 2') +
      block('259:3', NVME1) +
      block('8:0', 'pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda') +
      block('8:1', 'pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1', 'partition = 1') +
      block('8:16', 'pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb') +
      block('254:0', 'pci0000:00/0000:00:18.0/virtio2/block/vda') +
      block('8:32', 'pci0000:00/0000:00:1c.0/0000:01:00.0/host1/target1:0:0/1:0:0:0/block/sdc') +
      mounts(
        ['259:1', '/boot/efi', 'vfat', '/dev/nvme0n1p1'],
        ['259:2', '/', 'ext4', '/dev/nvme0n1p2'],
        ['259:2', '/var/lib/with\\040space', 'ext4', '/dev/nvme0n1p2'],
        ['259:2', '/home', 'ext4', '/dev/nvme0n1p2'],
        ['259:2', '/srv', 'ext4', '/dev/nvme0n1p2'],
        ['0:21', '/proc', 'proc', 'proc'],
        ['8:1', '/data', 'xfs', '/dev/sda1'],
        ['8:16', '/media/my\\040stick', 'vfat', '/dev/sdb'],
        ['254:0', '/virtual', 'ext4', '/dev/vda'],
        ['8:32', '/array', 'ext4', '/dev/sdc'],
      ),
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds /boot/efi (nvme0n1p1)', 'holds /, /srv, /home and 1 more (nvme0n1p2)']);
  t.deepEqual(uses(machine, '00:03.0'), [], 'nothing of it is mounted');
  t.deepEqual(uses(machine, '00:17.0'), ['holds /data (sda1)']);
  t.deepEqual(uses(machine, '00:14.0'), ['holds /media/my stick (sdb)'], 'through USB');
  t.deepEqual(uses(machine, '00:18.0'), ['holds /virtual (vda)']);
  t.deepEqual(uses(machine, '01:00.0'), ['holds /array (sdc)']);
  t.deepEqual(uses(machine, '00:1c.0'), ['holds /array (sdc)'], 'the bridge above');
});

/** A root file system on LVM on dm-crypt on a partition, and swap on another volume. */
const STACK =
  block('259:0', NVME0) +
  block('259:3', `${NVME0}/nvme0n1p3`, 'partition = 3') +
  block('253:0', 'virtual/block/dm-0', 'slaves/nvme0n1p3 -> ../../../../nowhere', 'dm/name = cryptroot') +
  block('253:1', 'virtual/block/dm-1', 'slaves/dm-0 -> ../../dm-0', 'dm/name = vg0-root') +
  block('253:2', 'virtual/block/dm-2', 'slaves/dm-0 -> ../../dm-0', 'dm/name = vg0-swap');

test('finds a root file system and swap on LVM on dm-crypt on NVMe', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      STACK +
      mounts(['253:1', '/', 'ext4', '/dev/mapper/vg0-root']) +
      '[proc]\nswaps = Filename Type Size Used Priority\\n/dev/mapper/vg0-swap partition 8 0 -2\\n/swapfile file 8 0 -3\n',
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (vg0-root, dm-1)', 'holds swap (vg0-swap, dm-2)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
});

test('a disk is in use as part of a volume that is not mounted', (t) => {
  const machine = machineOf(t, { pci: PCI, rest: STACK });
  t.deepEqual(uses(machine, '00:02.0'), [
    'holds a part of cryptroot, dm-0',
    'holds a part of vg0-root, dm-1',
    'holds a part of vg0-swap, dm-2',
  ]);
});

test('finds the mounts of an array of two disks and of its partition', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', NVME0) +
      block('259:1', NVME1) +
      block('9:0', 'virtual/block/md0', 'slaves/nvme0n1 -> ../x', 'slaves/nvme1n1 -> ../x') +
      block('259:4', 'virtual/block/md0/md0p1', 'partition = 1') +
      mounts(['259:4', '/', 'ext4', '/dev/md0p1']),
  });
  for (const address of ['00:02.0', '00:03.0']) t.deepEqual(uses(machine, address), ['holds / (md0p1)']);
  t.deepEqual(uses(machine, '00:17.0'), []);
});

test('a namespace of NVMe multipath belongs to every controller of its subsystem', (t) => {
  const subsystem = 'virtual/nvme-subsystem/nvme-subsys0';
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', `${subsystem}/nvme0n1`) +
      block('259:1', `${subsystem}/nvme0n1/nvme0n1p1`, 'partition = 1') +
      `[sys/devices/${subsystem}]
nvme0 -> ../../../pci0000:00/0000:00:02.0/nvme/nvme0
nvme1 -> ../../../pci0000:00/0000:00:03.0/nvme/nvme1
[sys/class/nvme-subsystem]
nvme-subsys0 -> ../../devices/${subsystem}
[sys/class/nvme]
nvme0 -> ../../devices/pci0000:00/0000:00:02.0/nvme/nvme0
nvme1 -> ../../devices/pci0000:00/0000:00:03.0/nvme/nvme1
` +
      mounts(['259:1', '/', 'ext4', '/dev/nvme0n1p1']),
  });
  for (const address of ['00:02.0', '00:03.0']) t.deepEqual(uses(machine, address), ['holds / (nvme0n1p1)']);
});

test('finds Btrfs on two disks, and bcachefs, whose mounts have the number of no disk', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', NVME0) +
      block('259:1', NVME1) +
      block('8:0', 'pci0000:00/0000:00:17.0/ata1/host0/block/sda') +
      block('8:16', 'pci0000:00/0000:00:14.0/usb2/host6/block/sdb') +
      `[sys/fs/btrfs/4f8f/devices]
nvme0n1 -> ../../../../x
nvme1n1 -> ../../../../x
[sys/fs/btrfs/features]
zoned = 0
[dev]
root -> nvme1n1
nvme1n1 =
` +
      mounts(['0:30', '/', 'btrfs', '/dev/root'], ['0:31', '/data', 'bcachefs', '/dev/sda:/dev/sdb']),
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (nvme0n1)']);
  t.deepEqual(uses(machine, '00:03.0'), ['holds / (nvme1n1)']);
  t.deepEqual(uses(machine, '00:17.0'), ['holds /data (sda)']);
  t.deepEqual(uses(machine, '00:14.0'), ['holds /data (sdb)']);
});

test('finds the mounts of a share of the hypervisor', (t) => {
  const virtio = (name: string, address: string, ...entries: string[]): string =>
    `[sys/devices/pci0000:00/${address}/${name}]\nstatus = 7\n${entries.join('\n')}\n[sys/bus/virtio/devices]\n${name} -> ../../../devices/pci0000:00/${address}/${name}\n`;
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      virtio('virtio0', '0000:00:02.0', 'mount_tag = rootfs') +
      virtio('virtio1', '0000:00:03.0', 'mount_tag = other') +
      virtio('virtio2', '0000:00:18.0', 'driver -> ../x/virtiofs') +
      mounts(['0:20', '/', '9p', 'rootfs'], ['0:22', '/shared', 'virtiofs', 'tag']),
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (a share of the hypervisor)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
  t.deepEqual(uses(machine, '00:18.0'), ['holds /shared (a share of the hypervisor)']);
});

test('finds a disk without mounts that a program has open', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: `${block('259:0', NVME0)}${block('259:1', NVME1)}[proc/5]\ncomm = qemu-kvm\nfd/9 -> /dev/nvme0n1\nfd/10 -> /dev/nvme1\n`,
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds nvme0n1, which is open in qemu-kvm (process 5)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
});

test('the mounts of process 1 count if they differ from those of this process', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', NVME0) +
      mounts(['0:5', '/', 'tmpfs', 'none']) +
      '[proc/1]\nmountinfo = 20 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n',
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (nvme0n1)']);
});

test('invalid block devices and mounts do not end the search', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      block('259:0', NVME0) +
      block('253:0', 'virtual/block/dm-0', 'slaves/dm-1 -> ../x', 'slaves/nvme0n1 -> ../x') +
      block('253:1', 'virtual/block/dm-1', 'slaves/dm-0 -> ../x', 'dm/name = \u001b[31mred') +
      `[sys/class/block]
odd -> ..
empty -> /
[sys/dev/block]
1:1 -> ../../devices/virtual/block/nothing
1:2 -> ..
[proc/self]
mountinfo = nonsense\\n20 1 253:1 / /\\u001b[2J rw - ext4 x rw\\n21 1 1:2 / /two rw - ext4 .. rw\\n22 1 a:b / /x rw - ext4 y rw\\n23 1 0:9 / /y rw - btrfs /dev/../.. rw\\n24 1 1:1 / /z rw -
[proc]
swaps = a\\n/dev/.. partition\\n\\n\\0
`.replaceAll('\\u001b', '\u001b'),
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds /?[2J ([31mred, dm-1)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
});
