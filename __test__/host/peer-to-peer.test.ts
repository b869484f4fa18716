/**
 * Verdicts, reasons and notes of the matrix for many machines.
 */
import test from 'ava';
import { type HostMachine, peerCandidates, peerMatrix } from '../../ts/host.ts';
import { at, cell, codes, described, hostOf, recorded, table } from './support.ts';

const all = (host: HostMachine) => peerMatrix(host, peerCandidates(host));

/** Two devices behind a switch below one root port. ACS of its ports and properties of the devices are optional. */
const behindSwitch = (o: {
  acs?: string;
  first?: string;
  second?: string;
  port?: string;
  root?: string;
  head?: string;
}) => `
${o.head ?? 'cpu intel 6'}
iommu dmar0 intel 48 device-tlb
host 0000:00 iommu=dmar0
  00.0 8086:${o.root ?? '09a2'} class=060000 group=0
  01.0 8086:352a root-port bus=01-04 group=1 acs=ReqRedir driver=pcieport
    00.0 1000:c030 switch-upstream bus=02-04 group=2 driver=pcieport
      00.0 1000:c030 switch-downstream bus=03-03 group=3 ${o.acs ?? 'acs=off'} driver=pcieport window=prefetch:1G@0x2000000000
        00.0 10de:2330 endpoint class=030200 driver=vfio-pci bar0=pref64:1G@0x2000000000 ${o.first ?? 'group=10'}
      01.0 1000:c030 switch-downstream bus=04-04 group=4 ${o.port ?? o.acs ?? 'acs=off'} driver=pcieport window=prefetch:1G@0x2040000000
        00.0 15b3:101e endpoint class=020000 driver=vfio-pci bar0=pref64:32M@0x2040000000 ${o.second ?? 'group=11'}
`;
const pair = (host: HostMachine) => cell(all(host), '03:00.0', '04:00.0');

test('evaluates a GPU server', (t) => {
  const matrix = all(described(t, 'gpu-server'));
  t.deepEqual(table(matrix), [
    '18:00.0: - host host host host*',
    '19:00.0: host - host host host*',
    '1a:00.2: host host - host host*',
    '9a:00.0: host host host - yes*',
    '9b:00.0: host host host host -',
  ]);
  t.deepEqual(codes(cell(matrix, '18:00.0', '19:00.0').reasons), ['acs-redirect', 'host-bridge-known']);
  t.regex(cell(matrix, '18:00.0', '19:00.0').reasons[0]?.text ?? '', /ACS of 0000:17:00\.0 redirects/);
  t.deepEqual(codes(cell(matrix, '18:00.0', '9a:00.0').reasons), ['different-host-bridges', 'host-bridge-known']);
  t.deepEqual(codes(cell(matrix, '9a:00.0', '9b:00.0').reasons), ['direct-ats']);
  t.deepEqual(codes(cell(matrix, '9a:00.0', '9b:00.0').prerequisites), ['low-power-state']);
  t.deepEqual(codes(cell(matrix, '9b:00.0', '9a:00.0').reasons), ['iommu-first', 'host-bridge-known']);
  t.deepEqual(codes(cell(matrix, '9b:00.0', '9a:00.0').notes), ['same-group', 'ats-not-on', 'bypass']);
});

test('evaluates a laptop whose host bridge is not known to forward', (t) => {
  const matrix = all(described(t, 'laptop'));
  t.true(matrix.cells.every(({ verdict }) => verdict === 'unknown'));
  const found = cell(matrix, '04:00.0', '01:00.0');
  t.deepEqual(codes(found.reasons), ['different-root-ports', 'host-bridge-not-known']);
  t.regex(found.reasons[1]?.text ?? '', /8086:9a14/);
  t.deepEqual(codes(found.prerequisites), ['not-bound', 'not-bound', 'low-power-state']);
  t.deepEqual(
    found.bars.map(({ index, problem }) => [index, problem === undefined]),
    [
      [0, true],
      [1, true],
      [3, true],
      [5, false],
    ],
  );
});

test('evaluates two sockets: forwarding within one, unknown between them', (t) => {
  const matrix = all(described(t, 'two-sockets'));
  t.deepEqual(table(matrix), ['01:00.0: - host ?', '02:00.0: host - ?', '81:00.0: ? ? -']);
  const across = cell(matrix, '01:00.0', '81:00.0');
  t.deepEqual(codes(across.reasons), ['different-host-bridges', 'host-bridge-not-known']);
  t.deepEqual(codes(across.notes), ['iommu-width'], '46 bits here, 48 there');
});

test('host bridges with REQ_SAME_HOST_BRIDGE forward only between their own ports', (t) => {
  const host = hostOf(
    t,
    `
cpu intel 6
host 0000:00
  00.0 8086:2f00 class=060000
  04.0 8086:1111 class=020000 group=1 driver=vfio-pci bar0=mem64:1M@0x90000000
host 0000:80
  00.0 8086:2f00 class=060000
  04.0 8086:1111 class=020000 group=2 driver=vfio-pci bar0=mem64:1M@0xc0000000
`,
  );
  t.deepEqual(codes(cell(all(host), '00:04.0', '80:04.0').reasons), ['different-host-bridges', 'host-bridge-one-only']);
});

test('an AMD desktop: its CPU forwards; devices of one group bypass the IOMMU', (t) => {
  const matrix = all(described(t, 'amd-desktop'));
  t.true(matrix.cells.every(({ verdict, prerequisites }) => verdict === 'host-bridge' && prerequisites.length > 0));
  t.deepEqual(codes(cell(matrix, '03:00.0', '04:00.0').notes), ['same-group', 'bypass', 'iommu-width-unknown']);
  const drive = matrix.bypasses.filter(({ initiator }) => initiator === '0000:03:00.0');
  t.deepEqual(
    drive.map(({ neighbour, start, certain }) => [neighbour, start, certain]),
    [
      ['0000:02:08.0', 0xfc400000n, true],
      ['0000:01:00.0', 0xfc6a0000n, false],
      ['0000:01:00.1', 0xfc680000n, false],
    ],
    'a switch routes between its ports; a device need not route between its functions',
  );
});

test("the testbed: QEMU's host bridge forwards, and the entangled group is not viable", (t) => {
  const host = recorded(t, 'testbed');
  const matrix = all(host);
  t.true(matrix.cells.every(({ verdict }) => verdict === 'host-bridge'));
  for (const { initiator, target, prerequisites } of matrix.cells) {
    const entangled = [initiator, target].includes('0000:02:01.0');
    t.deepEqual(codes(prerequisites), entangled ? ['group-not-viable'] : [], `${initiator} ${target}`);
  }
  t.deepEqual(
    matrix.bypasses.map(({ initiator, neighbour }) => `${initiator} ${neighbour}`),
    ['0000:02:01.0 0000:02:02.0', '0000:02:01.0 0000:02:02.0'],
    'on a conventional bus every device sees every address',
  );
});

test('below a switch guest addresses go up with any ACS; ACS changes the addresses that bypass the IOMMU', (t) => {
  const open = hostOf(t, behindSwitch({ acs: 'acs=off' }));
  t.is(pair(open).verdict, 'host-bridge');
  t.deepEqual(codes(pair(open).reasons), ['iommu-first', 'host-bridge-known']);
  t.deepEqual(codes(pair(open).notes), ['bypass']);
  t.deepEqual(all(open).bypasses[0], {
    initiator: '0000:03:00.0',
    neighbour: '0000:02:01.0',
    below: '0000:01:00.0',
    certain: true,
    start: 0x2040000000n,
    end: 0x2080000000n,
  });

  const none = hostOf(t, behindSwitch({ acs: '' }));
  t.deepEqual(codes(pair(none).notes), ['bypass'], 'missing ACS is equivalent to ACS that is off');

  const redirected = hostOf(t, behindSwitch({ acs: 'acs=ReqRedir' }));
  t.is(pair(redirected).verdict, 'host-bridge');
  t.deepEqual(codes(pair(redirected).reasons), ['acs-redirect', 'host-bridge-known']);
  t.deepEqual(all(redirected).bypasses, []);

  const oneSide = hostOf(t, behindSwitch({ acs: 'acs=ReqRedir', port: 'acs=off' }));
  t.deepEqual(
    all(oneSide).bypasses.map(({ initiator }) => initiator),
    ['0000:04:00.0'],
    "the port on the initiator's side decides",
  );

  const vector = hostOf(t, behindSwitch({ acs: 'acs=EgressCtrl' }));
  t.deepEqual(codes(pair(vector).notes), ['bypass']);
  t.false(all(vector).bypasses[0]?.certain);
});

test('the verdict is unknown below a switch of a root complex that may not forward, also with one port', (t) => {
  const host = hostOf(t, behindSwitch({ root: '9a14' }));
  t.is(pair(host).verdict, 'unknown');
  t.deepEqual(codes(pair(host).reasons), ['iommu-first', 'host-bridge-not-known']);
});

test('with ATS on, translated requests take the direct path unless a port redirects them', (t) => {
  const first = 'group=10 ats=on';
  const straight = pair(hostOf(t, behindSwitch({ first, root: '9a14' })));
  t.is(straight.verdict, 'yes', 'with any host bridge');
  t.deepEqual(codes(straight.reasons), ['direct-ats']);

  const kept = pair(hostOf(t, behindSwitch({ first, acs: 'acs=ReqRedir' })));
  t.is(kept.verdict, 'host-bridge');
  t.deepEqual(codes(kept.notes), ['acs-redirect']);

  const direct = pair(hostOf(t, behindSwitch({ first, acs: 'acs=ReqRedir,DirectTrans' })));
  t.is(direct.verdict, 'yes', 'ACS Direct Translated P2P exempts them');

  const blocked = pair(hostOf(t, behindSwitch({ first, acs: 'acs=TransBlk' })));
  t.is(blocked.verdict, 'host-bridge');
  t.deepEqual(codes(blocked.notes), ['ats-blocked', 'bypass']);

  const off = pair(hostOf(t, behindSwitch({ first: 'group=10 ats=off' })));
  t.is(off.verdict, 'host-bridge');
  t.deepEqual(codes(off.notes), ['ats-not-on', 'bypass']);
});

test('without an IOMMU devices use host addresses, and a switch routes them directly', (t) => {
  const no = { first: '', second: '' };
  const open = pair(hostOf(t, behindSwitch(no)));
  t.is(open.verdict, 'yes');
  t.deepEqual(codes(open.reasons), ['direct-bus-address']);
  t.deepEqual(codes(open.prerequisites), ['no-iommu', 'no-iommu']);
  const redirected = pair(hostOf(t, behindSwitch({ ...no, acs: 'acs=ReqRedir' })));
  t.is(redirected.verdict, 'host-bridge');
  t.deepEqual(codes(redirected.reasons), ['acs-redirect', 'host-bridge-known']);
  const vector = pair(hostOf(t, behindSwitch({ ...no, acs: 'acs=EgressCtrl' })));
  t.is(vector.verdict, 'unknown');
  const unread = pair(hostOf(t, behindSwitch(no), { configBytes: 64 }));
  t.is(unread.verdict, 'host-bridge', 'they arrive with either');
  t.deepEqual(codes(unread.reasons), ['acs-unknown', 'host-bridge-known']);
});

test('for a plain user the path to the host bridge is known, and the effects of ACS and ATS are unknown', (t) => {
  const matrix = all(described(t, 'gpu-server', { configBytes: 64 }));
  t.deepEqual(
    table(matrix).map((row) => row.replaceAll('*', '')),
    [
      '18:00.0: - host host host host',
      '19:00.0: host - host host host',
      '1a:00.2: host host - host host',
      '9a:00.0: host host host - host',
      '9b:00.0: host host host host -',
    ],
  );
  t.true(matrix.bypasses.length > 0);
  t.true(matrix.bypasses.every(({ certain }) => !certain));
  t.deepEqual(codes(cell(matrix, '18:00.0', '19:00.0').notes), ['ats-unknown', 'bypass']);
});

test('CPUs and host bridges that are known to forward', (t) => {
  const verdict = (head: string, root: string) => pair(hostOf(t, behindSwitch({ head, root }))).verdict;
  const onAmd = behindSwitch({ head: 'cpu amd 23' }).replaceAll('8086:09a2', '1022:1480');
  t.is(pair(hostOf(t, onAmd)).verdict, 'host-bridge', 'Zen');
  t.is(verdict('cpu amd 22', '9a14'), 'unknown', 'before Zen');
  t.is(verdict('cpu intel 6', '2020'), 'host-bridge', 'Skylake-E');
  t.is(verdict('cpu intel 6', '3c00'), 'host-bridge', 'one host bridge with itself');
  t.is(verdict('', '09a2'), 'host-bridge', 'a tree without the CPU');
});

/** Two devices of a virtual machine, below a host bridge and on the bus beside it. */
const virtual = (o: { cpu: string; bridge: string; first?: string; second?: string; between?: string }) => `
cpu ${o.cpu}
host 0000:00
  00.0 ${o.bridge} class=060000
  04.0 ${o.first ?? '10de:2330 endpoint'} group=1 driver=vfio-pci class=030200 bar0=pref64:16M@0x4000000000
  05.0 ${o.second ?? '15b3:101e endpoint'} group=2 driver=vfio-pci class=020000 bar0=pref64:16M@0x4001000000
`;
const between = (host: HostMachine) => cell(all(host), '00:04.0', '00:05.0');

test('in a virtual machine the hypervisor decides whether its host bridge forwards, so the verdict is unknown', (t) => {
  const machines: readonly (readonly [machine: string, why: RegExp])[] = [
    [virtual({ cpu: 'amd 25 virtual', bridge: '8086:0d57' }), /the flag hypervisor/],
    [virtual({ cpu: 'amd 25 virtual', bridge: '1022:1480' }), /the flag hypervisor/],
    [virtual({ cpu: 'intel 6 virtual', bridge: '8086:09a2' }), /the flag hypervisor/],
    [virtual({ cpu: 'amd 25 virtual', bridge: '8086:29c0 sub=1af4:1100' }), /what 0000:00:04\.0 reaches/],
    [virtual({ cpu: 'amd 25 real', bridge: '8086:09a2' }), /has another vendor than the CPU/],
    [virtual({ cpu: 'amd 25', bridge: '8086:0d57' }), /has another vendor than the CPU/],
    [virtual({ cpu: 'intel 6', bridge: '1022:1450' }), /has another vendor than the CPU/],
    [virtual({ cpu: 'intel 6 real', bridge: '8086:29c0 sub=1af4:1100' }), /QEMU emulates host bridge 0000:00/],
    [virtual({ cpu: 'amd 25 virtual', bridge: '1414:5353' }).replace(/ {2}00\.0.*\n/, ''), /the flag hypervisor/],
  ];
  for (const [text, why] of machines) {
    const { verdict, reasons } = between(hostOf(t, text));
    t.is(verdict, 'unknown', text);
    t.is(reasons.at(-1)?.code, 'host-bridge-not-known');
    t.regex(reasons.at(-1)?.text ?? '', why, text);
  }
  t.is(hostOf(t, virtual({ cpu: 'amd 25 virtual', bridge: '8086:0d57' })).virtual, true);
  t.is(hostOf(t, virtual({ cpu: 'amd 25 real', bridge: '1022:1480' })).virtual, false);
  t.is(hostOf(t, virtual({ cpu: 'amd 25', bridge: '1022:1480' })).virtual, 'unknown');
});

test('between devices that QEMU emulates its host bridge forwards, on any CPU', (t) => {
  const emulated = { first: '1234:11e8 sub=1af4:1100', second: '1af4:1041' };
  for (const cpu of ['amd 25 virtual', 'intel 6 virtual', 'amd 6', 'intel 6 real']) {
    const { verdict, reasons } = between(hostOf(t, virtual({ cpu, bridge: '8086:29c0 sub=1af4:1100', ...emulated })));
    t.is(verdict, 'host-bridge', cpu);
    t.regex(reasons.at(-1)?.text ?? '', /emulated by QEMU/);
  }
});

test('a Zen machine forwards if its host bridge is AMD’s, or is not visible', (t) => {
  for (const bridge of ['1022:14a4', '1022:1480']) {
    const { verdict, reasons } = between(hostOf(t, virtual({ cpu: 'amd 25 real', bridge })));
    t.is(verdict, 'host-bridge', bridge);
    t.regex(reasons.at(-1)?.text ?? '', /AMD CPUs of family 0x19/);
  }
  const hidden = virtual({ cpu: 'amd 25 real', bridge: '1022:14a4' }).replace(/ {2}00\.0.*\n/, '');
  t.is(between(hostOf(t, hidden)).verdict, 'host-bridge');
  const other = between(hostOf(t, virtual({ cpu: 'amd 25 real', bridge: '15ad:0774' })));
  t.is(other.verdict, 'unknown', 'neither AMD’s nor on the list');
});

test('a switch of a virtual machine does not make a path known', (t) => {
  const straight = pair(hostOf(t, behindSwitch({ first: 'group=10 ats=on', head: 'cpu intel 6 virtual' })));
  t.is(straight.verdict, 'unknown');
  t.deepEqual(codes(straight.reasons), ['direct-ats', 'host-bridge-not-known']);
  const noIommu = pair(hostOf(t, behindSwitch({ first: '', second: '', head: 'cpu intel 6 virtual' })));
  t.is(noIommu.verdict, 'unknown');
});

/** Two functions of one device below a root port. */
const oneDevice = (first: string) => `
cpu intel 6
iommu dmar0 intel 48 device-tlb
host 0000:00 iommu=dmar0
  00.0 8086:09a2 class=060000 group=0
  01.0 8086:352a root-port bus=01-01 group=1 acs=ReqRedir driver=pcieport
    00.0 10de:2330 endpoint class=030200 driver=vfio-pci bar0=pref64:1G@0x2000000000 group=10 ${first}
    00.1 10de:2331 endpoint class=040300 driver=vfio-pci bar0=pref64:32M@0x2040000000 group=11
`;

test('no reason mentions ACS of a function without ACS', (t) => {
  const machines = [
    oneDevice('ats=on'),
    oneDevice('ats=off'),
    oneDevice(''),
    oneDevice('').replaceAll(/ group=1[01]/g, ''),
    behindSwitch({ acs: '', first: 'group=10 ats=on' }),
    behindSwitch({ acs: '', first: '', second: '' }),
    target('bar2=pref64:16M@0xfc000000'),
    virtual({ cpu: 'amd 25', bridge: '1022:1480' }),
  ];
  for (const text of machines) {
    const host = hostOf(t, text);
    const { cells } = all(host);
    t.true(cells.length > 0);
    for (const reason of cells.flatMap(({ reasons, prerequisites, notes }) => [
      ...reasons,
      ...prerequisites,
      ...notes,
    ])) {
      const [, address = ''] = /ACS of (\S+)/.exec(reason.text) ?? [];
      if (address !== '') t.is(typeof host.functions.get(address)?.acs, 'object', reason.text);
      else t.notRegex(reason.code, /^acs-/, reason.text);
    }
  }
  const { verdict, notes } = cell(all(hostOf(t, oneDevice('ats=on'))), '01:00.0', '01:00.1');
  t.is(verdict, 'host-bridge');
  t.is(notes[0]?.code, 'inside-device');
  t.regex(notes[0]?.text ?? '', /whether the device 0000:01:00 has paths between its functions is unknown/);
});

test('notes that an egress vector may block translated requests', (t) => {
  const { notes } = pair(hostOf(t, behindSwitch({ first: 'group=10 ats=on', acs: 'acs=EgressCtrl' })));
  t.is(notes[0]?.code, 'acs-egress');
  t.regex(notes[0]?.text ?? '', /ACS of 0000:02:00\.0 has egress control on/);
});

test('ignores a first function that does not identify a host bridge', (t) => {
  const text = behindSwitch({}).replace(
    '  00.0 8086:09a2 class=060000 group=0\n',
    '  00.1 8086:09a2 class=060000 group=0\n',
  );
  const found = pair(hostOf(t, text));
  t.is(found.verdict, 'unknown');
  t.regex(found.reasons[1]?.text ?? '', /no function identifies host bridge 0000:00/);
});

const target = (bars: string, more = '') => `
cpu amd 25
iommu dmar0 intel 39
iommu dmar1 intel 48
reserved 1 0x0000000080000000 0x000000008fffffff reserved
host 0000:00 iommu=dmar0
  04.0 1234:11e8 class=00ff00 group=1 driver=vfio-pci bar0=mem32:1M@0xfe800000
host 0000:80 iommu=dmar1
  04.0 1af4:1110 class=050000 group=2 ${more || 'driver=vfio-pci'} ${bars}
`;
const toTarget = (host: HostMachine) => cell(peerMatrix(host, ['0000:00:04.0', '0000:80:04.0']), '00:04.0', '80:04.0');

test('reports BARs that an IOMMU cannot map', (t) => {
  const problem = (bars: string) => {
    const found = toTarget(hostOf(t, target(bars)));
    t.is(found.verdict, 'no');
    t.deepEqual(codes(found.reasons), ['no-target-bar']);
    return found.reasons[0]?.text ?? '';
  };
  t.regex(problem(''), /has no BAR$/);
  t.regex(problem('rom=512K@0xfe000000'), /has no BAR$/);
  t.regex(problem('bar0=io:256@0xd000'), /BAR 0: I\/O ports/);
  t.regex(problem('bar0=mem32:256@0xfe600000'), /256 bytes, less than a page/);
  t.regex(problem('bar0=mem64:16M'), /no address on the host/);
  t.regex(problem('bar0=pref64:1T@0x10000000000'), /larger than the 39-bit/);
  const mixed = toTarget(hostOf(t, target('bar0=io:256@0xd000 bar2=pref64:16M@0xfc000000')));
  t.is(mixed.verdict, 'host-bridge', 'one BAR is enough');
});

test('notes BARs that cannot be at their host address in the guest', (t) => {
  const notes = (bar: string) => codes(toTarget(hostOf(t, target(`bar2=pref64:${bar}`))).notes);
  t.deepEqual(notes('16M@0xfc000000'), ['iommu-width']);
  t.deepEqual(notes('16M@0x8000000000'), ['host-address-too-high', 'iommu-width'], 'beyond 39 bits');
  t.deepEqual(notes('16M@0x7fff000000'), ['iommu-width'], 'up to the last address');
  t.deepEqual(notes('16M@0x88000000'), ['host-address-reserved', 'iommu-width']);
  t.deepEqual(notes('16M@0xfee00000'), ['host-address-reserved', 'iommu-width'], 'the window of MSIs');
});

test('prerequisites do not change the verdict', (t) => {
  const prerequisites = (more: string) => {
    const found = toTarget(hostOf(t, target('bar2=pref64:16M@0xfc000000', more)));
    t.is(found.verdict, 'host-bridge');
    return codes(found.prerequisites);
  };
  t.deepEqual(prerequisites('driver=vfio-pci'), []);
  t.deepEqual(prerequisites('driver=mlx5_vfio_pci'), []);
  t.deepEqual(prerequisites('driver=nvme'), ['not-bound']);
  t.deepEqual(prerequisites('numa=0'), ['not-bound']);
  t.deepEqual(prerequisites('driver=vfio-pci decode=off'), ['decode-off']);
  t.deepEqual(prerequisites('driver=vfio-pci decode=off power=D3hot'), ['low-power-state']);
});

test('a matrix has the chosen devices in their order, without unknown addresses', (t) => {
  const host = described(t, 'laptop');
  const matrix = peerMatrix(host, ['0000:04:00.0', '0000:00:02.0', '0000:05:00.0', '0000:04:00.0']);
  t.deepEqual(matrix.devices, ['0000:04:00.0', '0000:00:02.0']);
  t.is(matrix.cells.length, 2);
  t.deepEqual(peerMatrix(host, []).cells, []);
});

test('a bridge can be in the matrix', (t) => {
  const host = described(t, 'gpu-server');
  const matrix = peerMatrix(host, ['0000:16:00.0', '0000:18:00.0']);
  t.is(cell(matrix, '18:00.0', '16:00.0').verdict, 'no');
  t.is(cell(matrix, '16:00.0', '18:00.0').verdict, 'host-bridge');
  t.is(at(host, '16:00.0').bars.length, 0);
});

test('the default devices include every endpoint that is bound to VFIO, of any class', (t) => {
  const bound = hostOf(
    t,
    `
host 0000:00
  01.0 8086:2030 root-port bus=01-03 group=1 driver=vfio-pci
    00.0 10de:2335 endpoint class=030200 group=10 driver=vfio-pci
  03.0 10de:22a3 endpoint class=068000 group=11 driver=vfio-pci
  1f.0 8086:a082 class=060100 group=12 driver=lpc_ich
`,
  );
  t.deepEqual(peerCandidates(bound), ['0000:00:03.0', '0000:01:00.0'], 'an NVSwitch, and no root port');
});

test('in a group without bound devices, other members that the host uses block it', (t) => {
  const machine = (audio: string) => `
host 0000:00
  01.0 8086:2030 root-port bus=01-01 group=1 driver=pcieport
    00.0 10de:2330 endpoint class=030000 group=7 driver=nvidia bar0=pref64:16M@0x22000000000
    00.1 10de:2331 endpoint class=040300 group=7 ${audio}
  02.0 8086:2030 root-port bus=02-02 group=2 driver=pcieport
    00.0 15b3:101e endpoint class=020000 group=8 driver=mlx5_core bar0=pref64:32M@0x28000000000
`;
  const prerequisites = (audio: string, target = '02:00.0') => {
    const host = hostOf(t, machine(audio));
    return cell(peerMatrix(host, ['0000:01:00.0', `0000:${target}`]), '01:00.0', target).prerequisites;
  };
  const found = prerequisites('driver=snd_hda_intel');
  t.deepEqual(codes(found), ['not-bound', 'not-bound', 'group-not-viable']);
  t.regex(found[2]?.text ?? '', /group 7 .* the host uses 0000:01:00\.1 \(snd_hda_intel\) of it/);
  t.deepEqual(codes(prerequisites('')), ['not-bound', 'not-bound'], 'without a driver it does not block');
  const both = prerequisites('driver=snd_hda_intel bar0=mem32:16K@0x80000000', '01:00.1');
  t.deepEqual(codes(both), ['not-bound', 'not-bound'], 'both have the prerequisite to be bound');
});

test('candidates are cards of every class, and not parts of the chipset', (t) => {
  const host = hostOf(
    t,
    `
host 0000:00
  00.0 8086:2f00 class=060000
  05.0 8086:2f80 integrated-endpoint class=088000
  06.0 8086:7113 class=068000
  07.0 1af4:1110 endpoint class=118000
  1f.0 8086:a082 class=060100
  1f.4 8086:a0a3 class=0c0500
  01.0 8086:2030 root-port bus=01-01
    00.0 10de:22a3 endpoint class=068000
    01.0 1ac1:089a endpoint class=088000
    02.0 10ee:9038 legacy-endpoint class=070001
    03.0 8086:09c4 class=118000
    04.0 1022:145a endpoint class=130000
    05.0 8086:a0b0 endpoint class=060100
`,
  );
  t.deepEqual(
    peerCandidates(host).map((address) => address.slice('0000:'.length)),
    ['00:07.0', '01:00.0', '01:01.0', '01:02.0', '01:03.0'],
    'a device with a link or below a bridge, except dummy functions and ISA bridges',
  );
});
