/**
 * Reading a host: functions, tree, groups and IOMMUs of recorded and described machines.
 */
import test from 'ava';
import { bridgesAbove, childrenOf, functionAt, readHost } from '../../ts/host.ts';
import { throwsCode } from '../support/errors.ts';
import { at, described, hostOf, recorded } from './support.ts';

test('reads the recorded testbed', (t) => {
  const host = recorded(t, 'testbed');
  t.deepEqual(host.findings, []);
  t.is(host.functions.size, 16);
  t.deepEqual(host.cpu, { vendor: 'amd', family: 6 }, 'QEMU without KVM');
  t.deepEqual(
    [...host.iommus.values()].map(({ name, kind, addressBits, deviceTlb }) => ({ name, kind, addressBits, deviceTlb })),
    [{ name: 'dmar0', kind: 'intel', addressBits: 48, deviceTlb: false }],
  );
  const peer = at(host, '01:00.0');
  t.deepEqual(peer.ids, {
    vendor: 0x1af4,
    device: 0x1110,
    subsystemVendor: 0x1af4,
    subsystemDevice: 0x1100,
    revision: 1,
  });
  t.is(peer.classCode, 0x050000);
  t.is(peer.driver, 'vfio-pci');
  t.is(peer.driverOverride, 'vfio-pci');
  t.is(peer.parent, '0000:00:07.0');
  t.is(peer.rootBus, '0000:00');
  t.is(peer.portType, 'conventional');
  t.is(peer.acs, 'none');
  t.deepEqual(peer.resetMethods, ['bus']);
  t.regex(peer.vfioFile ?? '', /^vfio\d+$/);
  t.deepEqual(
    peer.bars.map(({ index, kind, address, length, prefetchable }) => ({ index, kind, address, length, prefetchable })),
    [
      { index: 0, kind: 'memory32', address: 0xfe600000n, length: 256n, prefetchable: false },
      { index: 2, kind: 'memory64', address: 0xfc000000n, length: 16n << 20n, prefetchable: true },
    ],
  );
  const port = at(host, '00:07.0');
  t.is(port.portType, 'root-port');
  t.deepEqual(port.bridge, { primary: 0, secondary: 1, subordinate: 1 });
  t.deepEqual(port.acs, {
    has: ['SrcValid', 'TransBlk', 'ReqRedir', 'CmpltRedir', 'UpstreamFwd', 'DirectTrans'],
    on: ['SrcValid', 'ReqRedir', 'CmpltRedir', 'UpstreamFwd'],
  });
  t.deepEqual(port.windows, [
    { kind: 'io', address: 0x1000n, length: 0x1000n },
    { kind: 'memory', address: 0xfe600000n, length: 2n << 20n },
    { kind: 'prefetchable', address: 0xfc000000n, length: 16n << 20n },
  ]);
  t.deepEqual(host.groups.get(9), {
    number: 9,
    members: ['0000:00:09.0', '0000:02:01.0', '0000:02:02.0'],
    others: [],
    type: 'DMA-FQ',
    reserved: [{ start: 0xfee00000n, end: 0xfef00000n, kind: 'msi' }],
  });
});

test('reads a GPU server: switches, links, virtual functions, IOMMUs of their own', (t) => {
  const host = described(t, 'gpu-server');
  t.deepEqual(host.findings, []);
  t.deepEqual(
    host.rootBuses.map(({ name, hostBridge }) => ({ name, hostBridge })),
    [
      { name: '0000:15', hostBridge: '0000:15:00.0' },
      { name: '0000:97', hostBridge: '0000:97:00.0' },
    ],
  );
  const gpu = at(host, '19:00.0');
  t.deepEqual(
    bridgesAbove(host, gpu).map(({ portType }) => portType),
    ['switch-downstream', 'switch-upstream', 'root-port'],
  );
  t.deepEqual(
    childrenOf(host, '0000:16:00.0').map(({ address }) => address),
    ['0000:17:00.0', '0000:17:01.0', '0000:17:02.0'],
  );
  t.deepEqual(gpu.link, { speed: 16, width: 16, mostSpeed: 32, mostWidth: 16 });
  t.deepEqual(gpu.ats, { enabled: false });
  t.is(gpu.numaNode, 0);
  t.is(at(host, '9b:00.0').powerState, 'D3hot');
  t.false(at(host, '9b:00.0').memoryDecode);
  t.is(at(host, '97:01.0').iommu, 'dmar1');
  t.true(host.iommus.get('dmar1')?.deviceTlb);
  t.is(at(host, '1a:00.2').physicalFunction, '0000:1a:00.0');
  t.true(
    at(host, '1a:00.2').memoryDecode,
    'memory decode of a virtual function is that of its physical function, not its own bit',
  );
  t.is(at(host, '1a:00.0').virtualFunctions?.most, 8);
  t.deepEqual(host.groups.get(20)?.reserved, [
    { start: 0x79000000n, end: 0x7b000000n, kind: 'direct-relaxable' },
    { start: 0xfee00000n, end: 0xfef00000n, kind: 'msi' },
  ]);
});

test('for a plain user, facts after the first 64 bytes of config space are unknown, not absent', (t) => {
  const host = described(t, 'gpu-server', { configBytes: 64 });
  t.deepEqual(host.findings, []);
  const port = at(host, '17:00.0');
  t.is(port.configBytes, 64);
  t.is(port.portType, 'unknown');
  t.is(port.acs, 'unknown');
  t.deepEqual(port.bridge, { primary: 0, secondary: 0x18, subordinate: 0x18 });
  const gpu = at(host, '18:00.0');
  t.is(gpu.ats, 'unknown');
  t.true(gpu.memoryDecode);
  t.is(at(host, '1a:00.2').memoryDecode, 'unknown', 'its control is in a capability of the physical function');
});

test('with 256 bytes of a PCI Express function, its type is known and its extended capabilities are not', (t) => {
  const port = at(described(t, 'gpu-server', { configBytes: 256 }), '17:00.0');
  t.is(port.portType, 'switch-downstream');
  t.is(port.acs, 'unknown');
});

test('reads a laptop: a GPU in a low-power state, an IOMMU of 39 bits, I/O ports and a ROM', (t) => {
  const host = described(t, 'laptop');
  t.deepEqual(host.findings, []);
  const gpu = at(host, '01:00.0');
  t.is(gpu.powerState, 'D3cold');
  t.deepEqual(
    gpu.bars.map(({ index, kind }) => `${index} ${kind}`),
    ['0 memory32', '1 memory64', '3 memory64', '5 io', '6 rom'],
  );
  t.is(host.iommus.get('dmar1')?.addressBits, 39);
  t.is(at(host, '00:02.0').portType, 'integrated-endpoint');
  t.deepEqual(at(host, '04:00.0').resetMethods, ['flr', 'bus']);
  t.deepEqual(at(host, '00:14.0').resetMethods, []);
});

test('reads two sockets: devices that represent a host bridge, and a bridge without one', (t) => {
  const host = described(t, 'two-sockets');
  t.deepEqual(host.findings, []);
  t.deepEqual(
    host.rootBuses.map(({ name, hostBridge }) => [name, hostBridge]),
    [
      ['0000:00', '0000:00:00.0'],
      ['0000:80', '0000:80:01.0'],
      ['0000:ff', undefined],
    ],
  );
});

test('reads an AMD desktop: the CPU, an IOMMU without a width in /sys, one large group', (t) => {
  const host = described(t, 'amd-desktop');
  t.deepEqual(host.findings, []);
  t.deepEqual(host.cpu, { vendor: 'amd', family: 25 });
  t.is(host.iommus.get('ivhd0')?.kind, 'amd');
  t.is(host.iommus.get('ivhd0')?.addressBits, 'unknown');
  t.is(host.groups.get(15)?.members.length, 8);
});

test('a machine without an IOMMU has no groups', (t) => {
  const host = hostOf(t, 'host 0000:00\n  00.0 8086:0d57 class=060000\n  04.0 1af4:1110 bar2=pref64:16M@0xfc000000');
  t.is(host.groups.size, 0);
  t.is(at(host, '00:04.0').group, undefined);
  t.is(host.cpu, 'unknown');
});

test('a kernel before 5.15 reports that a function can be reset, but not how', (t) => {
  const host = hostOf(t, 'host 0000:00\n  04.0 1af4:1110 reset=flr');
  t.deepEqual(at(host, '00:04.0').resetMethods, ['flr']);
  const old = recorded(t, 'old-kernel');
  t.is(at(old, '00:04.0').resetMethods, 'unknown');
  t.deepEqual(at(old, '00:05.0').resetMethods, []);
});

test('places functions by bus numbers if a copy has folders for links, and reads windows without SR-IOV', (t) => {
  const host = recorded(t, 'old-kernel');
  t.deepEqual(host.findings, []);
  t.is(at(host, '01:00.0').parent, '0000:00:1c.0');
  t.is(at(host, '01:00.0').rootBus, '0000:00');
  t.deepEqual(at(host, '00:1c.0').windows, [{ kind: 'memory', address: 0xfe600000n, length: 2n << 20n }]);
});

test('finds a device by its address', (t) => {
  const host = described(t, 'laptop');
  t.is(functionAt(host, '04:00.0').address, '0000:04:00.0');
  t.is(functionAt(host, '0000:04:00.0').address, '0000:04:00.0');
  t.is(throwsCode(t, () => functionAt(host, '05:00.0'), 'ERR_DEVICE_NOT_FOUND').bdf, '0000:05:00.0');
  throwsCode(t, () => functionAt(host, 'nvme0'), 'ERR_INVALID_ARGUMENT');
});

test('rejects a folder that is not /sys', (t) => {
  throwsCode(t, () => readHost('/proc'), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => readHost('/nowhere'), 'ERR_INVALID_ARGUMENT');
});

test('reads this machine', (t) => {
  t.notThrows(() => {
    try {
      readHost();
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_INVALID_ARGUMENT') throw error; // no PCI here
    }
  });
});
