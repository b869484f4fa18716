/**
 * Network cards that carry remote storage.
 */
import test from 'ava';
import { block, machineOf, mounts, network, uses } from './support.ts';

const PCI = `
host 0000:00
  02.0 8086:1572 endpoint class=020000 group=1 driver=i40e
  03.0 8086:1572 endpoint class=020000 group=2 driver=i40e
  04.0 8086:1572 endpoint class=020000 group=3 driver=i40e
  05.0 1b36:0010 endpoint class=010802 group=4 driver=nvme
`;
const NICS =
  network('pci0000:00/0000:00:02.0/net/eno1') +
  network('pci0000:00/0000:00:03.0/net/eno2') +
  network('pci0000:00/0000:00:04.0/net/eno3');
const ADDRESSES = { eno1: ['10.0.1.5'], eno2: ['10.0.2.5', 'fd00::5'], eno3: ['10.0.3.5'] };
const SYSTEM = '[proc]\nself/mountinfo =\n';

/** A line of /proc/net/tcp of an established connection. */
const connection = (local: string, remote: string, inode = 0): string =>
  `0: ${local} ${remote} 01 00000000:00000000 02:00 00000000     0        0 ${inode} 4 0`;
const connections = (...lines: string[]): string => `[proc/net]\ntcp = sl local\\n${lines.join('\\n')}\n`;

test('a root file system on NFS uses the card of the route to the server', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: NICS + mounts(['0:21', '/', 'nfs', '10.0.1.9:/srv/root', 'rw,vers=3,addr=10.0.1.9']),
    interfaceTo: { '10.0.1.9': 'eno1' },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the file system at / (eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
});

test('NFS, SMB and Ceph use the card of their connection, without the program ip', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      mounts(
        ['0:21', '/', 'nfs4', 'server:/', 'rw,vers=4.2,clientaddr=10.0.2.5,addr=10.0.2.9'],
        ['0:22', '/home', 'cifs', '//server/home', 'rw,addr=10.0.3.9'],
        ['0:23', '/ceph', 'ceph', 'admin@a.fs=/', 'rw,mon_addr=10.0.3.8:6789/10.0.3.9:6789'],
        ['0:24', '/tmp', 'tmpfs', 'tmpfs', 'rw,addr=10.0.1.9'],
      ) +
      // Connections of eno3 to 10.0.3.9, and of eno1 to a server without a mount.
      connections(connection('0503000A:03E8', '0903000A:01BD'), connection('0501000A:03E8', '0901000A:0801')),
    addresses: ADDRESSES,
  });
  t.deepEqual(uses(machine, '00:02.0'), []);
  t.deepEqual(uses(machine, '00:03.0'), ['carries the file system at / (eno2)']);
  t.deepEqual(uses(machine, '00:04.0'), ['carries the file systems at /ceph, /home (eno3)']);
});

test('finds NFS by IPv6 through a bond', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      network('virtual/net/bond0', 'eno1', 'eno2') +
      mounts(
        ['0:21', '/a', 'nfs4', '[fd00::9]:/', 'rw,addr=fd00::9'],
        ['0:22', '/b', 'nfs4', '[fd00::9]:/b', 'addr=fd00::9'],
      ),
    interfaceTo: { 'fd00::9': 'bond0' },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the file systems at /a, /b (eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), ['carries the file systems at /a, /b (eno2)']);
  t.deepEqual(uses(machine, '00:04.0'), []);
});

const ISCSI = 'platform/host2/session1/target2:0:0/2:0:0:1/block/sda';

test('an iSCSI disk uses the card of its session', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      block('8:0', ISCSI) +
      block('8:1', `${ISCSI}/sda1`, 'partition = 1') +
      block('253:0', 'virtual/block/dm-0', 'slaves/sda1 -> ../x', 'dm/name = root') +
      `[sys/class/iscsi_connection/connection1:0]
address = 10.0.1.9
persistent_address = 10.0.1.9
[sys/class/iscsi_connection/connection10:0]
address = 10.0.3.9
[sys/class/iscsi_host/host2]
ipaddress = 10.0.2.5
` +
      mounts(['253:0', '/', 'ext4', '/dev/mapper/root']),
    addresses: ADDRESSES,
    interfaceTo: { '10.0.1.9': 'eno1', '10.0.3.9': 'eno3' },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (root, dm-0, by eno1)'], 'by the address of the target');
  t.deepEqual(uses(machine, '00:03.0'), ['holds / (root, dm-0, by eno2)'], 'by the address of this machine');
  t.deepEqual(uses(machine, '00:04.0'), [], 'another session');
});

test('an iSCSI disk without a use does not block', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: `${NICS}${block('8:0', ISCSI)}[sys/class/iscsi_host/host2]\nipaddress = 10.0.2.5\n${SYSTEM}`,
    addresses: ADDRESSES,
  });
  t.deepEqual(uses(machine, '00:03.0'), []);
});

test('an NBD disk uses the card of the connections of its process', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      block('43:0', 'virtual/block/nbd0', 'pid = 700') +
      block('43:32', 'virtual/block/nbd1') +
      `[proc/700]\ncomm = nbd-client\nfd/3 -> socket:[71]\n` +
      connections(connection('0501000A:03E8', '0901000A:0FA0', 71), connection('0502000A:03E8', '0902000A:2A39', 72)) +
      mounts(['43:0', '/', 'ext4', '/dev/nbd0'], ['43:32', '/x', 'ext4', '/dev/nbd1']),
    addresses: ADDRESSES,
  });
  t.deepEqual(uses(machine, '00:02.0'), ['holds / (nbd0, by eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), [], 'a connection of another process');
});

test('an NBD disk without its process uses the cards of all connections to the port of NBD', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      block('43:0', 'virtual/block/nbd0', 'pid = 700') +
      connections(connection('0501000A:03E8', '0901000A:0FA0'), connection('0502000A:03E8', '0902000A:2A39')) +
      mounts(['43:0', '/', 'ext4', '/dev/nbd0']),
    addresses: ADDRESSES,
  });
  t.deepEqual(uses(machine, '00:02.0'), []);
  t.deepEqual(uses(machine, '00:03.0'), ['holds / (nbd0, by eno2)']);
});

test('NVMe over TCP uses the cards of its controllers', (t) => {
  const subsystem = 'virtual/nvme-subsystem/nvme-subsys1';
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      block('259:0', `${subsystem}/nvme1n1`) +
      `[sys/devices/${subsystem}]
nvme1 -> ../../nvme-fabrics/ctl/nvme1
nvme2 -> ../../nvme-fabrics/ctl/nvme2
[sys/class/nvme-subsystem]
nvme-subsys1 -> ../../devices/${subsystem}
[sys/class/nvme]
nvme1 -> ../../devices/virtual/nvme-fabrics/ctl/nvme1
nvme2 -> ../../devices/virtual/nvme-fabrics/ctl/nvme2
[sys/devices/virtual/nvme-fabrics/ctl/nvme1]
address = traddr=10.0.1.9,trsvcid=4420,src_addr=10.0.2.5
[sys/devices/virtual/nvme-fabrics/ctl/nvme2]
address = traddr=10.0.3.9,trsvcid=4420
` +
      mounts(['259:0', '/', 'ext4', '/dev/nvme1n1']),
    addresses: ADDRESSES,
    interfaceTo: { '10.0.3.9': 'eno3' },
  });
  t.deepEqual(uses(machine, '00:02.0'), []);
  t.deepEqual(uses(machine, '00:03.0'), ['holds / (nvme1n1, by eno2)']);
  t.deepEqual(uses(machine, '00:04.0'), ['holds / (nvme1n1, by eno3)']);
});

test('invalid addresses lead to no card', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      block('8:0', 'platform/session1/block/sda') +
      block('43:0', 'virtual/block/nbd0', 'pid = many') +
      '[sys/class/iscsi_connection/connection1:0]\naddress = ../../etc\n' +
      connections('0: x y 01', connection('0501000A:03E8', '0901000A')) +
      mounts(
        ['8:0', '/', 'ext4', '/dev/sda'],
        ['43:0', '/x', 'ext4', '/dev/nbd0'],
        ['0:21', '/n', 'nfs', 'x:/', 'addr=,addr=x,clientaddr,addr=10.0.0.256'],
      ),
    addresses: ADDRESSES,
  });
  for (const address of ['00:02.0', '00:03.0', '00:04.0']) t.deepEqual(uses(machine, address), []);
});
