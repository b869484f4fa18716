/**
 * Config space in the forms that the kernel returns. Virtual functions, functions that do not respond, and truncated
 * config space.
 */
import test, { type ExecutionContext } from 'ava';
import { type HostMachine, type PciFunction, peerMatrix, readHost } from '../../ts/host.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { at, codes, hostOf } from './support.ts';

/** One function without findings, with these bytes of config space in the format of expand.ts. */
function functionOf(t: ExecutionContext, config: string, ...lines: string[]): PciFunction {
  const host = hostWith(t, config, ...lines);
  t.deepEqual(host.findings, []);
  return at(host, '00:04.0');
}

function hostWith(t: ExecutionContext, config: string, ...lines: string[]): HostMachine {
  const entries = ['[bus/pci/devices/0000:00:04.0]', 'vendor = 0x19ee', 'class = 0x020000', ...lines];
  return readHost(expandTree(t, [...entries, `config : ${config}`].join('\n')));
}

function hex(offset: number): string {
  return offset.toString(16);
}

const EXPRESS = '0:ee194060 4:0600 6:10 34:40 40:1000 42:0200';

test('reads a virtual function, whose vendor and device registers are all ones', (t) => {
  const host = hostOf(
    t,
    `
host 0000:00
  04.0 8086:1572 endpoint class=020000 vfs=8 vf-decode=on driver=i40e group=1
  04.1 8086:154c endpoint class=020000 physfn=0000:00:04.0 ats=on driver=vfio-pci group=2
`,
  );
  t.deepEqual(host.findings, []);
  t.like(at(host, '00:04.1'), { responds: true, portType: 'endpoint', busMaster: true, acs: 'none' });
  t.deepEqual(at(host, '00:04.1').ats, { enabled: true });
  t.is(at(host, '00:04.1').ids.device, 0x154c, 'its own file in /sys has them');
});

test('reads the header of a virtual function as a plain user', (t) => {
  const found = functionOf(t, '64 0:ffffffff 4:0400 6:10 34:40', 'physfn -> ../0000:00:03.0');
  t.like(found, { responds: true, busMaster: true, portType: 'unknown', configBytes: 64 });
});

test('a virtual function that does not respond reads as all ones from end to end', (t) => {
  const host = hostWith(t, `256 0:${'ff'.repeat(256)}`, 'physfn -> ../0000:00:03.0');
  t.like(at(host, '00:04.0'), { responds: false, busMaster: 'unknown', portType: 'unknown' });
});

test('it is unknown without config space whether a function responds', (t) => {
  const host = readHost(expandTree(t, '[bus/pci/devices/0000:00:04.0]\nvendor = 0x8086\nclass = 0x020000'));
  t.is(at(host, '00:04.0').responds, 'unknown');
});

test('detects a bridge by the header type, not by the class', (t) => {
  t.is(functionOf(t, '256 0:ee194060 4:0600', 'class = 0x060400').bridge, undefined, 'a header of type 0');
  const bridge = { primary: 0, secondary: 1, subordinate: 4 };
  for (const [type, kind] of [
    ['01', '0x060400'],
    ['81', '0x060980'],
    ['01', '0x088000'],
    ['02', '0x060700'],
  ] as const) {
    const found = functionOf(t, `256 0:ee194060 4:0600 e:${type} 18:000104`, `class = ${kind}`);
    t.deepEqual(found.bridge, bridge, `${type} ${kind}`);
  }
  for (const kind of ['0x060400', '0x060980', '0x060700']) {
    t.is(at(hostWith(t, '0', `class = ${kind}`), '00:04.0').bridge, 'unknown', 'where no header can be read');
  }
  t.is(at(hostWith(t, '0', 'class = 0x068000'), '00:04.0').bridge, undefined);
});

test('a CardBus bridge has a header of 128 bytes for every user', (t) => {
  t.like(functionOf(t, '128 0:ee194060 4:0600 6:10 e:02 18:000104', 'class = 0x060700'), {
    bridge: { primary: 0, secondary: 1, subordinate: 4 },
    portType: 'unknown',
  });
});

test('the header of a CardBus bridge has its capability pointer elsewhere', (t) => {
  // At the offset of the pointer in other headers it has an I/O base. At 0x14 the pointer leads to PCI Express.
  const found = functionOf(t, '256 0:ee194060 4:0600 6:10 e:02 14:80 18:000104 34:01f0 80:1000 82:7200');
  t.like(found, { portType: 'pcie-to-pci-bridge', bridge: { primary: 0, secondary: 1, subordinate: 4 } });
});

test('capabilities are unknown with an unknown header type', (t) => {
  const host = hostWith(t, '256 0:ee194060 4:0600 6:10 e:7f 34:40 40:1000');
  t.like(at(host, '00:04.0'), { portType: 'unknown', acs: 'unknown', memoryDecode: true });
  t.regex(host.findings[0]?.problem ?? '', /at 0xe: the header type 127 is reserved/);
});

test('reads config space that the kernel shortens to 0xa0 bytes', (t) => {
  const found = functionOf(t, '160 0:14102802 4:0600 6:10 34:40 40:0100');
  t.like(found, { portType: 'conventional', acs: 'none', ats: 'none' });
  const express = functionOf(t, `160 ${EXPRESS}`);
  t.like(express, { portType: 'endpoint', acs: 'unknown', ats: 'unknown' });
  const beyond = functionOf(t, '160 0:14102802 4:0600 6:10 34:a0');
  t.like(beyond, { portType: 'unknown', acs: 'unknown', ats: 'unknown' });
});

test('reads config space that the kernel shortens to 0x600 bytes', (t) => {
  // SR-IOV, then ATS.
  const found = functionOf(t, `1536 ${EXPRESS} 100:10000114 108:0900 140:0f000100 146:0080`);
  t.like(found, { portType: 'endpoint', acs: 'none', configBytes: 1536 });
  t.deepEqual(found.ats, { enabled: true });
  const beyond = functionOf(t, `1536 ${EXPRESS} 100:10000160`);
  t.like(beyond, { acs: 'unknown', ats: 'unknown' }, 'the chain continues in unread bytes');
  const across = functionOf(t, `1536 ${EXPRESS} 100:1000c15f 5fc:0d000100`);
  t.like(across, { acs: 'unknown', ats: 'none' }, 'the capability continues in unread bytes');
});

/** A bad link of the conventional chain, and the text about it. */
const BAD_LINKS: readonly [title: string, bytes: (link: number) => string, problem: RegExp][] = [
  ['leads into the header', (link) => `${hex(link + 1)}:20`, /is 0x20, which is outside 0x40\.\.0x100/],
  ['leads back', (link) => `${hex(link + 1)}:40`, /is 0x40, which the chain has visited already/],
  ['leads to ones', (link) => `${hex(link + 1)}:f0 f0:ffff`, /at 0xf0: a capability reads as all ones/],
];

for (const [title, bytes, problem] of BAD_LINKS) {
  test(`keeps the capabilities before a link that ${title}`, (t) => {
    // PCI Express at 0x40, then another capability at 0x80 with the bad link.
    const found = hostWith(t, `4096 ${EXPRESS} 41:80 80:0900 ${bytes(0x80)} 100:0d000100 104:5f005d00`);
    t.like(at(found, '00:04.0'), { portType: 'endpoint', ats: 'none', responds: true });
    t.deepEqual(at(found, '00:04.0').acs, {
      has: ['SrcValid', 'TransBlk', 'ReqRedir', 'CmpltRedir', 'UpstreamFwd', 'DirectTrans'],
      on: ['SrcValid', 'ReqRedir', 'CmpltRedir', 'UpstreamFwd', 'DirectTrans'],
    });
    t.is(found.findings.length, 1);
    t.regex(found.findings[0]?.problem ?? '', problem);
  });

  test(`a capability after a link that ${title} is unknown`, (t) => {
    const found = hostWith(t, `4096 0:ee194060 4:0600 6:10 34:40 40:0900 ${bytes(0x40)}`);
    t.like(at(found, '00:04.0'), { portType: 'unknown', acs: 'unknown', ats: 'unknown', memoryDecode: true });
    t.is(found.findings.length, 1);
  });
}

test('keeps the extended capabilities before a bad link; others are unknown', (t) => {
  for (const [link, problem] of [
    ['0201', /is 0x10, which is outside 0x100/],
    ['0110', /is 0x100, which the chain has visited already/],
    ['0120 200:ffffffff', /at 0x200: an extended capability reads as all ones/],
  ] as const) {
    // SR-IOV, then ACS with the bad link.
    const found = hostWith(t, `4096 ${EXPRESS} 100:10000114 108:0900 140:0d00 142:${link} 144:01000100`);
    t.like(at(found, '00:04.0'), { portType: 'endpoint', ats: 'unknown' });
    t.deepEqual(at(found, '00:04.0').acs, { has: ['SrcValid'], on: ['SrcValid'] });
    t.is(found.findings.length, 1);
    t.regex(found.findings[0]?.problem ?? '', problem);
  }
});

test('an extended capability that passes the end is unknown, and the others are known', (t) => {
  const found = hostWith(t, `4096 ${EXPRESS} 100:0f00c1ff 106:0080 ffc:0d000100`);
  t.like(at(found, '00:04.0'), { acs: 'unknown', virtualFunctions: undefined });
  t.deepEqual(at(found, '00:04.0').ats, { enabled: true });
  t.regex(found.findings[0]?.problem ?? '', /at 0xffc: a capability passes the end/);
});

test('derives memory decode of virtual functions from SR-IOV before a bad link', (t) => {
  const physical = `config : 4096 ${EXPRESS} 100:1000 102:0102 108:0900`;
  const virtual = 'physfn -> ../0000:00:04.0\nconfig : 64 0:ffffffff 4:0400';
  const folder = 'bus/pci/devices/0000:00:04';
  const host = readHost(expandTree(t, `[${folder}.0]\n${physical}\n[${folder}.1]\n${virtual}`));
  t.regex(host.findings[0]?.problem ?? '', /which is outside 0x100/);
  t.is(at(host, '00:04.1').memoryDecode, true);
});

test('extended capabilities are unknown if extended config space reads as ones', (t) => {
  const found = functionOf(t, `4096 ${EXPRESS} 100:ffffffff`);
  t.like(found, { portType: 'endpoint', acs: 'unknown', ats: 'unknown' });
});

test('a function that does not respond is not ready, neither as initiator nor as target', (t) => {
  const host = hostOf(
    t,
    `
host 0000:00
  04.0 8086:1572 endpoint class=020000 driver=vfio-pci group=4 bar0=mem32:64K@0xfebc0000
  05.0 8086:1572 endpoint class=020000 driver=vfio-pci group=5 bar0=mem32:64K@0xfebd0000
`,
  );
  const dead: PciFunction = { ...at(host, '00:04.0'), responds: false, memoryDecode: 'unknown' };
  const functions = new Map([...host.functions, [dead.address, dead]]);
  const { cells } = peerMatrix({ ...host, functions }, [...functions.keys()]);
  t.deepEqual(
    cells.map(({ initiator }) => initiator),
    ['0000:00:04.0', '0000:00:05.0'],
  );
  for (const { prerequisites } of cells) {
    t.deepEqual(codes(prerequisites), ['not-responding']);
    t.regex(prerequisites[0]?.text ?? '', /^0000:00:04\.0 does not respond/);
  }
});
