/**
 * Displays, consoles, keyboards, virtual functions and VFIO users for which the host uses a function.
 */
import test from 'ava';
import type { Machine } from '../../../ts/host/machine.ts';
import { usesOf } from '../../../ts/host/use/uses.ts';
import { vfioUsers } from '../../../ts/host/use/vfio-users.ts';
import { block, machineOf, mounts, network, uses } from './support.ts';

test('finds the boot display, and a GPU that programs have open', (t) => {
  const machine = machineOf(t, {
    pci: `
host 0000:00
  02.0 8086:9a49 integrated-endpoint class=030000 group=1 driver=i915
  03.0 10de:2330 endpoint class=030200 group=2 driver=nvidia
  04.0 10de:2330 endpoint class=030200 group=3 driver=nvidia
`,
    rest: `[sys/bus/pci/devices/0000:00:02.0]
boot_vga = 1
drm/card0/
drm/renderD128/
[sys/bus/pci/devices/0000:00:03.0]
boot_vga = 0
[proc/driver/nvidia/gpus/0000:00:03.0]
information = Model: 	 H100\\nDevice Minor: 	 4
[proc/driver/nvidia/gpus/0000:00:04.0]
information = Device Minor: 	 40
[proc/812]
comm = Xorg
fd/9 -> /dev/dri/card0
fd/10 -> /dev/dri/renderD128
fd/11 -> /dev/nvidiactl
[proc/900]
comm = python3
fd/3 -> /dev/nvidia4
fd/4 -> /dev/dri/card1
`,
  });
  t.deepEqual(uses(machine, '00:02.0'), [
    'shows the console (it is the boot display)',
    'is open in Xorg (process 812)',
  ]);
  t.deepEqual(uses(machine, '00:03.0'), ['is open in python3 (process 900)']);
  t.deepEqual(uses(machine, '00:04.0'), []);
});

test("a device with the firmware's frame buffer on a BAR shows the console", (t) => {
  const machine = machineOf(t, {
    pci: 'host 0000:00\n  03.0 10de:2330 endpoint class=030200 group=2 bar1=pref64:256M@0xc0000000',
    rest: '[proc]\niomem = c0000000-cfffffff : 0000:00:03.0\\n  c1000000-c1ffffff : BOOTFB',
  });
  t.deepEqual(uses(machine, '00:03.0'), ['shows the console (BOOTFB is on its BAR 1)']);
});

test("finds serial cards of the kernel's console, and of a login", (t) => {
  const tty = (name: string, place: string): string =>
    `[sys/devices/${place}]\nline = 1\n[sys/class/tty]\n${name} -> ../../devices/${place}\n`;
  const machine = machineOf(t, {
    pci: `
host 0000:00
  03.0 8086:a13d class=070002 group=1 driver=serial
  04.0 8086:a13d class=070002 group=2 driver=serial
  05.0 8086:a13d class=070002 group=3 driver=serial
  14.0 8086:a0ed class=0c0330 group=4 driver=xhci_hcd
`,
    rest:
      tty('ttyS0', 'pnp0/00:05/tty/ttyS0') +
      tty('ttyS4', 'pci0000:00/0000:00:03.0/0000:00:03.0:0/0000:00:03.0:0.0/tty/ttyS4') +
      tty('ttyS5', 'pci0000:00/0000:00:04.0/tty/ttyS5') +
      tty('ttyS6', 'pci0000:00/0000:00:05.0/tty/ttyS6') +
      tty('ttyUSB0', 'pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0') +
      `[proc]
consoles = ttyS0                -W- (EC  p a)    4:64\\nttyS4                -W- (E   p a)    4:68\\nttyUSB0 -W- (E)
[proc/812]
comm = agetty
fd/0 -> /dev/ttyS5
`,
  });
  t.deepEqual(uses(machine, '00:03.0'), ["carries the kernel's console (ttyS4)"]);
  t.deepEqual(uses(machine, '00:04.0'), ['has ttyS5, which is open in agetty (process 812)']);
  t.deepEqual(uses(machine, '00:05.0'), [], 'the line is not used');
  t.deepEqual(uses(machine, '00:14.0'), ["carries the kernel's console (ttyUSB0)"], 'through USB');
});

test('finds a virtio console of the kernel', (t) => {
  const virtio = (name: string, address: string, driver: string): string =>
    `[sys/devices/pci0000:00/${address}/${name}]
driver -> ../../../../bus/virtio/drivers/${driver}
[sys/bus/virtio/devices]
${name} -> ../../../devices/pci0000:00/${address}/${name}
`;
  const machine = machineOf(t, {
    pci: 'host 0000:00\n  03.0 1af4:1043 class=078000 group=1\n  04.0 1af4:1041 class=020000 group=2',
    rest:
      virtio('virtio0', '0000:00:03.0', 'virtio_console') +
      virtio('virtio1', '0000:00:04.0', 'virtio_net') +
      '[sys/class/tty]\nhvc0 -> ../../devices/virtual/tty/hvc0\n[proc]\nconsoles = hvc0 -W- (EC  p  ) 229:0\n',
  });
  t.deepEqual(uses(machine, '00:03.0'), ["carries the kernel's console (hvc0)"]);
  t.deepEqual(uses(machine, '00:04.0'), []);
});

test('finds keyboards', (t) => {
  const machine = machineOf(t, {
    pci: 'host 0000:00\n  14.0 8086:a0ed class=0c0330 group=1\n  15.0 8086:a0ed class=0c0330 group=2',
    rest: `[proc/bus/input]
devices = ${[
      'I: Bus=0003',
      'N: Name="Some "Keyboard"\u0007"',
      'S: Sysfs=/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/0003:046D:C31C.0001/input/input5',
      'H: Handlers=sysrq kbd event3 leds',
      '',
      'N: Name="A mouse"',
      'S: Sysfs=/devices/pci0000:00/0000:00:15.0/usb2/2-4/input/input6',
      'H: Handlers=mouse0 event4',
      '',
      'H: Handlers=kbd',
    ].join('\\n')}
`,
  });
  t.deepEqual(uses(machine, '00:14.0'), ['has the keyboard Some "Keyboard"?']);
  t.deepEqual(uses(machine, '00:15.0'), []);
  t.deepEqual(usesOf(machine, deviceAt(machine, '00:14.0'))[0]?.kind, 'keyboard');
});

test("finds virtual functions, and the host's uses of them", (t) => {
  const machine = machineOf(t, {
    pci: `
host 0000:00
  02.0 8086:1572 endpoint class=020000 group=1 driver=i40e vfs=8
  02.1 8086:154c endpoint class=020000 group=2 driver=iavf physfn=0000:00:02.0
  02.2 8086:154c endpoint class=020000 group=3 driver=iavf physfn=0000:00:02.0
  03.0 8086:1572 endpoint class=020000 group=4 driver=i40e vfs=8
`,
    rest:
      `[sys/devices/pci0000:00/0000:00:02.0]
virtfn0 -> ../0000:00:02.1
virtfn1 -> ../0000:00:02.2
` +
      network('pci0000:00/0000:00:02.2/net/eth2') +
      block('1:1', 'pci0000:00/0000:00:02.2/odd/block/disk') +
      mounts(['1:1', '/', 'ext4', 'x']),
    sshConnection: '192.0.2.7 1 10.0.0.5 22',
    addresses: { eth2: ['10.0.0.5'] },
  });
  t.deepEqual(uses(machine, '00:02.0'), [
    'has 2 virtual functions on, which are removed with it',
    'has 0000:00:02.2, which holds / (disk)',
    'has 0000:00:02.2, which carries the login to 10.0.0.5 (eth2)',
  ]);
  t.deepEqual(uses(machine, '00:02.1'), []);
  t.deepEqual(uses(machine, '00:03.0'), [], 'it supports some, but has none');
});

test('finds the processes that have a device open through VFIO, by its group or by its own file', (t) => {
  const machine = machineOf(t, {
    pci: `
host 0000:00
  02.0 8086:1572 endpoint class=020000 group=1 driver=vfio-pci vfio=vfio0
  03.0 8086:1572 endpoint class=020000 group=12 driver=mlx5_vfio_pci vfio=vfio3
  04.0 8086:1572 endpoint class=020000 group=2 driver=vfio-pci vfio=vfio4
  05.0 8086:1572 endpoint class=020000 group=12 driver=i40e
`,
    rest: `[proc/10]
comm = qemu-system-x86
fd/7 -> /dev/vfio/12
fd/8 -> /dev/vfio/12
[proc/11]
comm = node
fd/7 -> /dev/vfio/devices/vfio0
fd/8 -> /dev/vfio/vfio
fd/9 -> /dev/null
[dev/vfio]
2 =
`,
  });
  const users = (address: string): string[] => vfioUsers(machine, deviceAt(machine, address));
  t.deepEqual(users('00:02.0'), ['node (process 11)']);
  t.deepEqual(users('00:03.0'), ['qemu-system-x86 (process 10)']);
  t.deepEqual(users('00:04.0'), []);
  t.deepEqual(users('00:05.0'), [], 'it is not bound to VFIO');
});

function deviceAt({ host }: Machine, address: string) {
  const device = host.functions.get(`0000:${address}`);
  if (device === undefined) throw new Error(`nothing at ${address}`);
  return device;
}
