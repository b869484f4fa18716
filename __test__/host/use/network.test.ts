/**
 * Logins and routes for which the host uses a function.
 */
import test from 'ava';
import { machineOf, network, uses } from './support.ts';

const PCI = `
host 0000:00
  02.0 8086:1572 endpoint class=020000 group=1 driver=i40e
  03.0 8086:1572 endpoint class=020000 group=2 driver=i40e
  04.0 8086:1572 endpoint class=020000 group=3 driver=i40e
  05.0 1af4:1041 class=020000 group=4 driver=virtio-pci
`;
const NICS =
  network('pci0000:00/0000:00:02.0/net/eno1') +
  network('pci0000:00/0000:00:03.0/net/eno2') +
  network('pci0000:00/0000:00:04.0/net/eno3') +
  network('pci0000:00/0000:00:05.0/virtio0/net/ens5') +
  network('virtual/net/lo');

const routes = (...lines: string[]): string =>
  `[proc/net]\nroute = Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\\n${lines.join('\\n')}\n`;

test('finds a login to a VLAN on a bond', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: NICS + network('virtual/net/bond0', 'eno1', 'eno2') + network('virtual/net/bond0.100', 'bond0'),
    sshConnection: '192.0.2.7 50412 10.0.0.5 22',
    addresses: { lo: ['127.0.0.1'], 'bond0.100': ['10.0.0.5', 'fe80::1'], eno3: ['10.0.1.5'] },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the login to 10.0.0.5 (bond0.100, by eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), ['carries the login to 10.0.0.5 (bond0.100, by eno2)']);
  t.deepEqual(uses(machine, '00:04.0'), []);
});

test('finds a login by IPv6 with an unusual notation', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: NICS,
    sshConnection: 'fe80::2%eno3 50412 FE80:0:0::0005%eno3 22',
    addresses: { eno3: ['fe80::5'] },
  });
  t.deepEqual(uses(machine, '00:04.0'), ['carries the login to fe80::5 (eno3)']);
});

test('without SSH_CONNECTION, which sudo drops, the connections of the SSH server count', (t) => {
  const tcp = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
  const line = (local: string, state: string, inode: number): string =>
    `   0: ${local} 070200C0:C4EC ${state} 00000000:00000000 02:00 00000000     0        0 ${inode} 4 0`;
  const machine = machineOf(t, {
    pci: PCI,
    rest: `${NICS}[proc/net]
tcp = ${[tcp, line('00000000:0016', '0A', 70), line('0500000A:0016', '01', 71), line('0501000A:0050', '01', 80)].join('\\n')}
tcp6 = ${[tcp, line('0000000000000000FFFF00000502000A:0016', '01', 72), line('000080FE000000000000000005000000:0016', '01', 73), line('B80D0120000000000000000001000000:0016', '06', 71), 'nonsense'].join('\\n')}
[proc/900]
comm = sshd
fd/3 -> socket:[70]
fd/4 -> socket:[71]
[proc/901]
comm = sshd-session
fd/4 -> socket:[72]
[proc/902]
comm = dropbear
fd/4 -> socket:[73]
[proc/903]
comm = nginx
fd/4 -> socket:[80]
`,
    addresses: {
      eno1: ['10.0.0.5'],
      eno2: ['10.0.1.5'],
      eno3: ['10.0.2.5', '2001:db8::1'],
      ens5: ['fe80::500:0', 'fe80::5'],
    },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the login to 10.0.0.5 (eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), [], 'a connection of another server');
  t.deepEqual(uses(machine, '00:04.0'), ['carries the login to 10.0.2.5 (eno3)'], 'IPv4 of a socket for both');
  t.deepEqual(uses(machine, '00:05.0'), ['carries the login to fe80::5 (ens5)']);
});

test('finds the default routes of a bridge and of IPv6, and the interfaces below a tunnel', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      network('virtual/net/br0', 'eno1', 'tap0') +
      network('virtual/net/tap0') +
      network('virtual/net/wg0') +
      routes(
        'br0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0',
        'wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0',
        'ens5\t070200C0\t0100000A\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0',
        'eno2\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0',
        'eno2\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0',
      ) +
      `ipv6_route = ${[
        `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 fe80${'0'.repeat(27)}1 00000400 00000001 00000000 00450003     eno3`,
        `${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} ffffffff 00000001 00000000 00200200     eno2`,
        `fe80${'0'.repeat(28)} 40 ${'0'.repeat(32)} 00 ${'0'.repeat(32)} 00000100 00000001 00000000 00000001     eno2`,
      ].join('\\n')}
`,
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the default route (br0, by eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), [], 'routes to its own link alone');
  t.deepEqual(uses(machine, '00:04.0'), ['carries the default route (eno3)']);
  t.deepEqual(uses(machine, '00:05.0'), ['carries a route by way of a gateway (ens5)']);
});

test('invalid interfaces and routes do not end the search', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest:
      NICS +
      network('pci0000:00/0000:00:04.0/net/\u001bc') +
      network('virtual/net/a0', 'b0') +
      network('virtual/net/b0', 'a0', 'eno1', '..') +
      '[sys/class/net]\nodd -> ..\n[proc]\nnet/ipv6_route = \\n0\\n\u0000\n[proc/x]\ncomm = sshd\n[proc/77]\nfd/0 -> socket:[]\n' +
      routes(
        '',
        'a0\t00000000',
        'b0\t00000000\t0\tzz\t0\t0\t0\t00000000',
        'b0\t00000000\t0\t1\t0\t0\t0\t00000000',
        '\u001bc\t00000000\t0\t1\t0\t0\t0\t00000000',
      ),
    sshConnection: 'much ado',
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the default route (b0, by eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), []);
  t.deepEqual(uses(machine, '00:04.0'), ['carries the default route (?c)']);
});
