/**
 * Screens, keyboards, virtual functions, and who has a device through VFIO, on written machines.
 */
import test from 'ava';
import type { Machine } from '../../../ts/host/machine.ts';
import { usesOf } from '../../../ts/host/use/uses.ts';
import { vfioUsers } from '../../../ts/host/use/vfio-users.ts';
import { block, machineOf, mounts, network, uses } from './support.ts';

test('the boot display, and programs that have a GPU open', (t) => {
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

test("a device on whose BAR the firmware's frame buffer is shows the console", (t) => {
  const machine = machineOf(t, {
    pci: 'host 0000:00\n  03.0 10de:2330 endpoint class=030200 group=2 bar1=pref64:256M@0xc0000000',
    rest: '[proc]\niomem = c0000000-cfffffff : 0000:00:03.0\\n  c1000000-c1ffffff : BOOTFB',
  });
  t.deepEqual(uses(machine, '00:03.0'), ['shows the console (BOOTFB is on its BAR 1)']);
});

test('keyboards', (t) => {
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

test('virtual functions go with the physical one, and what they are used for', (t) => {
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
    'has 2 virtual functions on, which go with it',
    'has 0000:00:02.2, which holds / (disk)',
    'has 0000:00:02.2, which carries the login to 10.0.0.5 (eth2)',
  ]);
  t.deepEqual(uses(machine, '00:02.1'), []);
  t.deepEqual(uses(machine, '00:03.0'), [], 'it could have some');
});

test('who has a device through VFIO: by its group, or by its own file', (t) => {
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
  t.deepEqual(users('00:05.0'), [], 'it is not with VFIO');
});

function deviceAt({ host }: Machine, address: string) {
  const device = host.functions.get(`0000:${address}`);
  if (device === undefined) throw new Error(`nothing at ${address}`);
  return device;
}
