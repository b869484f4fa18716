/**
 * PCI addresses as text: the forms that other tools print all name one function.
 */
import test from 'ava';
import { pciAddress } from '../../ts/host.ts';
import { byAddress } from '../../ts/host/address.ts';
import { readHost } from '../../ts/host.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { throwsCode } from '../support/errors.ts';

test('accepts a PCI address in each form that a tool prints', (t) => {
  const forms: readonly (readonly [text: string, address: string])[] = [
    ['0000:3b:00.0', '0000:3b:00.0'], // lspci -D, /sys
    ['3b:00.0', '0000:3b:00.0'], // lspci
    ['1:00.0', '0000:01:00.0'],
    ['1:0.0', '0000:01:00.0'],
    ['0:1f.3', '0000:00:1f.3'],
    ['0000:3B:1F.7', '0000:3b:1f.7'],
    ['00000000:3B:00.0', '0000:3b:00.0'], // nvidia-smi
    ['00010000:E1:00.0', '10000:e1:00.0'],
    ['10000:e1:00.0', '10000:e1:00.0'], // behind Intel VMD
    ['c05b:00:02.0', 'c05b:00:02.0'], // Hyper-V
    ['0:01:00.0', '0000:01:00.0'],
    ['/sys/bus/pci/devices/0000:01:00.0', '0000:01:00.0'],
    ['/sys/bus/pci/devices/0000:01:00.0/', '0000:01:00.0'],
    ['/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0', '0000:01:00.0'],
    ['pci@0000:01:00.0', '0000:01:00.0'], // lshw
    ['pci-0000:01:00.0', '0000:01:00.0'], // udev's ID_PATH
    ['PCI-0000:01:00.0', '0000:01:00.0'],
    ['pci/0000:01:00.0', '0000:01:00.0'], // devlink
    ['pci_0000_01_00_0', '0000:01:00.0'], // virsh nodedev-list
    ['pci-0000_01_00_0', '0000:01:00.0'], // udev's ID_PATH_TAG
    ['pci:0000:01:00.0', '0000:01:00.0'], // DPDK
    ['../../../0000:01:00.0', '0000:01:00.0'], // readlink
    ['../../devices/pci0000:00/0000:00:01.0/0000:01:00.0', '0000:01:00.0'],
    ['0000:01:00.0:', '0000:01:00.0'], // the kernel's log
    ['/dev/dri/by-path/pci-0000:01:00.0-card', '0000:01:00.0'],
    ['/dev/dri/by-path/pci-0000:01:00.0-render', '0000:01:00.0'],
    [' 01:00.0\n', '0000:01:00.0'],
  ];
  for (const [text, address] of forms) t.is(pciAddress(text), address, JSON.stringify(text));
});

test('rejects text that is not a PCI address', (t) => {
  const wrong = [
    '',
    'nvme0',
    '01:00',
    '01:00.8',
    '01:20.0',
    '100:00.0',
    '000000000:01:00.0',
    '0000:01:00.0:1',
    '01:00.0 02:00.0',
    'g1:00.0',
    'PCI:1:0:0',
    '/sys/bus/pci/devices',
    '/sys/bus/pci/devices/0000:01:00.0/config',
    '0000:01:00.0/../0000:02:00.0',
    '01-00.0',
    '01:00:0',
    '01:00x0',
    'pci:1:0:0',
    '0000_01_00_0',
    '0000:01:00.0::',
    '0000:01:00.0-card',
    '/dev/input/by-path/pci-0000:00:14.0-usb-0:1:1.0-event-kbd',
  ];
  for (const text of wrong) {
    const { message } = throwsCode(t, () => pciAddress(text), 'ERR_INVALID_ARGUMENT');
    t.true(message.includes(JSON.stringify(text)), message);
  }
  throwsCode(t, () => pciAddress(7 as unknown as string), 'ERR_INVALID_ARGUMENT');
});

test('a domain of five digits is read from /sys', (t) => {
  const root = expandTree(t, describeMachine('host 10000:e0\n  06.0 8086:09ab class=060400'));
  t.deepEqual([...readHost(root).functions.keys()], ['10000:e0:06.0']);
});

test('sorts addresses by number, the domain first', (t) => {
  const sorted = ['0000:01:00.0', '0000:01:00.1', '0000:02:00.0', 'ffff:00:00.0', '10000:00:00.0', '10000:e0:06.0'];
  t.deepEqual(sorted.toReversed().sort(byAddress), sorted);
});
