/**
 * Interfaces without a link in /sys to the one below. These are internal ports of Open vSwitch, PPP over Ethernet,
 * tunnels and veth pairs. Also routes with several next hops.
 */
import test, { type ExecutionContext } from 'ava';
import { machineOf, network, uses } from './support.ts';

const PCI = `
host 0000:00
  02.0 8086:1572 endpoint class=020000 group=1 driver=i40e
  03.0 8086:1572 endpoint class=020000 group=2 driver=i40e
`;
const NICS = network('pci0000:00/0000:00:02.0/net/eno1') + network('pci0000:00/0000:00:03.0/net/eno2');
const SWITCH = network('virtual/net/ovs-system', 'eno1', 'tap0') + network('virtual/net/tap0');
/** Files of an interface. */
const files = (name: string, ...lines: string[]): string => `[sys/devices/virtual/net/${name}]\n${lines.join('\n')}\n`;

/** The uses of a machine's functions whose default route goes by this interface. */
function withDefault(t: ExecutionContext, name: string, rest: string): (address: string) => string[] {
  const route = `Iface\tDestination\\n${name}\t00000000\t00000000\t0001\t0\t0\t0\t00000000`;
  const machine = machineOf(t, { pci: PCI, rest: `${NICS}${rest}[proc/net]\nroute = ${route}\n` });
  return (address) => uses(machine, address);
}

test('the default route by an internal port of Open vSwitch goes through the ports of the switch', (t) => {
  const on = withDefault(
    t,
    'br-ex',
    SWITCH + network('virtual/net/br-ex') + files('br-ex', 'type = 1', 'uevent = INTERFACE=br-ex'),
  );
  t.deepEqual(on('00:02.0'), ['carries the default route (br-ex, by eno1)']);
  t.deepEqual(on('00:03.0'), [], 'not a port');
});

test('finds the login on a VLAN of an internal port of Open vSwitch', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: NICS + SWITCH + network('virtual/net/br0') + network('virtual/net/br0.7', 'br0'),
    sshConnection: '192.0.2.9 50000 192.0.2.20 22',
    addresses: { 'br0.7': ['192.0.2.20'] },
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the login to 192.0.2.20 (br0.7, by eno1)']);
});

for (const [what, lines] of [
  ['WireGuard', ['type = 65534', 'uevent = DEVTYPE=wireguard\\nINTERFACE=wg0']],
  ['a TUN device', ['type = 65534', 'tun_flags = 0x1001']],
  ['a TAP device', ['type = 1', 'tun_flags = 0x1002']],
  ['a VXLAN', ['type = 1', 'uevent = DEVTYPE=vxlan']],
] as const) {
  test(`${what} is not an internal port of Open vSwitch`, (t) => {
    const on = withDefault(t, 'wg0', SWITCH + network('virtual/net/wg0') + files('wg0', ...lines));
    t.deepEqual(on('00:02.0'), []);
  });
}

test('without Open vSwitch a virtual interface uses no card', (t) => {
  t.deepEqual(withDefault(t, 'dummy0', network('virtual/net/dummy0'))('00:02.0'), []);
});

for (const [what, name, lines] of [
  ['by its name', 'ppp0', []],
  ['by its type', 'wan', ['type = 512']],
  ['by its kind', 'pppoe-wan', ['uevent = DEVTYPE=ppp\\nINTERFACE=pppoe-wan']],
] as const) {
  test(`the default route by PPP goes through the interface of the PPPoE session: ${what}`, (t) => {
    const table = ['Id       Address              Device', '00000001 02:00:00:00:00:01   eno2.7'];
    const sessions = `[proc/net]\npppoe = ${table.join('\\n')}\n`;
    const rest =
      network(`virtual/net/${name}`) + files(name, ...lines) + network('virtual/net/eno2.7', 'eno2') + sessions;
    const on = withDefault(t, name, rest);
    t.deepEqual(on('00:03.0'), [`carries the default route (${name}, by eno2)`]);
    t.deepEqual(on('00:02.0'), []);
  });
}

test('PPP without PPPoE sessions uses no known card', (t) => {
  t.deepEqual(withDefault(t, 'ppp0', network('virtual/net/ppp0'))('00:02.0'), []);
});

test('a tunnel on an interface, and a veth pair into a bridge, use the cards of the attached interfaces', (t) => {
  const index = '[sys/devices/pci0000:00/0000:00:02.0/net/eno1]\nifindex = 2\niflink = 2\n';
  const tunnel = network('virtual/net/gre1') + files('gre1', 'ifindex = 9', 'iflink = 2');
  t.deepEqual(withDefault(t, 'gre1', index + tunnel)('00:02.0'), ['carries the default route (gre1, by eno1)']);
  const pair =
    network('virtual/net/veth0') +
    files('veth0', 'ifindex = 4', 'iflink = 5') +
    network('virtual/net/veth1') +
    files('veth1', 'ifindex = 5', 'iflink = 4') +
    SWITCH +
    '[sys/devices/virtual/net/veth1]\nmaster -> ../ovs-system\n';
  const on = withDefault(t, 'veth0', index + pair);
  t.deepEqual(on('00:02.0'), ['carries the default route (veth0, by eno1)']);
  t.deepEqual(on('00:03.0'), []);
});

test('finds all next hops of a route in every table', (t) => {
  const machine = machineOf(t, {
    pci: PCI,
    rest: NICS,
    routes: [
      { type: 'local', dst: 'default', dev: 'lo', table: 'local', flags: [] },
      {
        dst: 'default',
        flags: [],
        nexthops: [
          { gateway: '10.0.0.1', dev: 'eno1', weight: 1, flags: [] },
          { via: { family: 'inet6', host: 'fe80::1' }, dev: 'eno2', weight: 1, flags: [] },
        ],
      },
      { dst: '10.0.0.0/24', dev: 'eno1', flags: [] },
    ],
  });
  t.deepEqual(uses(machine, '00:02.0'), ['carries the default route (eno1)']);
  t.deepEqual(uses(machine, '00:03.0'), ['carries the default route (eno2)']);
  const policy = (...routes: unknown[]) => uses(machineOf(t, { pci: PCI, rest: NICS, routes }), '00:03.0');
  t.deepEqual(policy({ dst: 'default', dev: 'eno2', table: '100' }), ['carries the default route (eno2)']);
  t.deepEqual(policy({ dst: '192.0.2.0/24', via: { family: 'inet6', host: 'fe80::1' }, dev: 'eno2' }), [
    'carries a route by way of a gateway (eno2)',
  ]);
  t.deepEqual(
    policy({ dst: '192.0.2.0/24', dev: 'eno2' }, { type: 'blackhole', dst: 'default' }, null, 7, { dev: 1 }),
    [],
  );
});
