/**
 * Config space in the forms in which the kernel hands it out: of virtual functions, of functions that do not answer,
 * and shortened.
 */
import test, { type ExecutionContext } from 'ava';
import { type Host, type PciFunction, peerMatrix, readHost } from '../../ts/host/index.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { at, codes, hostOf } from './support.ts';

/** One function without findings, with these bytes of config space in the format of expand.ts. */
function functionOf(t: ExecutionContext, config: string, ...lines: string[]): PciFunction {
  const host = hostWith(t, config, ...lines);
  t.deepEqual(host.findings, []);
  return at(host, '00:04.0');
}

function hostWith(t: ExecutionContext, config: string, ...lines: string[]): Host {
  const entries = ['[bus/pci/devices/0000:00:04.0]', 'vendor = 0x19ee', 'class = 0x020000', ...lines];
  return readHost(expandTree(t, [...entries, `config : ${config}`].join('\n')));
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
  t.like(at(host, '00:04.1'), { answers: true, portType: 'endpoint', busMaster: true, acs: 'none' });
  t.deepEqual(at(host, '00:04.1').ats, { enabled: true });
  t.is(at(host, '00:04.1').ids.device, 0x154c, 'which has a file of its own in /sys');
});

test('reads the header of a virtual function that a user without privileges is given', (t) => {
  const found = functionOf(t, '64 0:ffffffff 4:0400 6:10 34:40', 'physfn -> ../0000:00:03.0');
  t.like(found, { answers: true, busMaster: true, portType: 'unknown', configBytes: 64 });
});

test('a virtual function that does not answer reads as all ones from end to end', (t) => {
  const host = hostWith(t, `256 0:${'ff'.repeat(256)}`, 'physfn -> ../0000:00:03.0');
  t.like(at(host, '00:04.0'), { answers: false, busMaster: 'unknown', portType: 'unknown' });
});

test('whether a function answers is unknown without its config space', (t) => {
  const host = readHost(expandTree(t, '[bus/pci/devices/0000:00:04.0]\nvendor = 0x8086\nclass = 0x020000'));
  t.is(at(host, '00:04.0').answers, 'unknown');
});

test('the header type says what is a bridge, not the class', (t) => {
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

test('reads what there is of a config space that the kernel shortens to 0xa0 bytes', (t) => {
  const found = functionOf(t, '160 0:14102802 4:0600 6:10 34:40 40:0100');
  t.like(found, { portType: 'conventional', acs: 'none', ats: 'none' });
  const express = functionOf(t, `160 ${EXPRESS}`);
  t.like(express, { portType: 'endpoint', acs: 'unknown', ats: 'unknown' });
  const beyond = functionOf(t, '160 0:14102802 4:0600 6:10 34:a0');
  t.like(beyond, { portType: 'unknown', acs: 'unknown', ats: 'unknown' });
});

test('reads what there is of a config space that the kernel shortens to 0x600 bytes', (t) => {
  // SR-IOV, then ATS.
  const found = functionOf(t, `1536 ${EXPRESS} 100:10000114 108:0900 140:0f000100 146:0080`);
  t.like(found, { portType: 'endpoint', acs: 'none', configBytes: 1536 });
  t.deepEqual(found.ats, { enabled: true });
  const beyond = functionOf(t, `1536 ${EXPRESS} 100:10000160`);
  t.like(beyond, { acs: 'unknown', ats: 'unknown' }, 'the chain goes on where nothing was read');
  const across = functionOf(t, `1536 ${EXPRESS} 100:1000c15f 5fc:0d000100`);
  t.like(across, { acs: 'unknown', ats: 'none' }, 'the capability goes on where nothing was read');
});

test('a function that does not answer is not ready, neither as initiator nor as target', (t) => {
  const host = hostOf(
    t,
    `
host 0000:00
  04.0 8086:1572 endpoint class=020000 driver=vfio-pci group=4 bar0=mem32:64K@0xfebc0000
  05.0 8086:1572 endpoint class=020000 driver=vfio-pci group=5 bar0=mem32:64K@0xfebd0000
`,
  );
  const dead: PciFunction = { ...at(host, '00:04.0'), answers: false, memoryDecode: 'unknown' };
  const functions = new Map([...host.functions, [dead.address, dead]]);
  const { cells } = peerMatrix({ ...host, functions }, [...functions.keys()]);
  t.deepEqual(
    cells.map(({ initiator }) => initiator),
    ['0000:00:04.0', '0000:00:05.0'],
  );
  for (const { needs } of cells) {
    t.deepEqual(codes(needs), ['not-answering']);
    t.regex(needs[0]?.text ?? '', /^0000:00:04\.0 does not answer/);
  }
});
