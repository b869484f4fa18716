/**
 * Doctor findings about whole machines: without problems, mostly unknown, and damaged.
 */
import test from 'ava';
import fc from 'fast-check';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import { readHost } from '../../ts/host.ts';
import { readSystem } from '../../ts/host/system/read-system.ts';
import { damage, damaged, untilDone } from '../support/sysfs/damage.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import {
  GIB,
  MACHINE,
  NO_IOMMU,
  SYS,
  TOP,
  UNBOUND,
  UNLOADED,
  type Wishes,
  diagnosed,
  found,
  noIommufd,
  one,
} from './support.ts';

test('reports a machine without problems', (t) => {
  const { state, machine, devices } = diagnosed(t, { machine: MACHINE.replace(/ bar4=\S+/, ''), facts: { ram: GIB } });
  t.deepEqual(
    [...machine, ...devices].map(({ state: each }) => each).filter((each) => each !== 'ok'),
    [],
  );
  t.is(state, 'ok');
  t.deepEqual(
    machine.map(({ id }) => id),
    [
      'kernel',
      'iommu',
      'interrupt-remapping',
      'vfio',
      'type1',
      'iommufd',
      'map-file',
      'device-files',
      'dma-buf',
      'memlock',
      'mappings',
      'huge-pages',
    ],
  );
  for (const { evidence } of machine) t.not(evidence, '');
});

test('omits checks that depend on a failed check', (t) => {
  const ids = (wishes: Wishes) => diagnosed(t, wishes).machine.map(({ id }) => id);
  t.false(ids({ machine: NO_IOMMU }).includes('interrupt-remapping'));
  const unloaded = {
    machine: UNBOUND,
    sys: UNLOADED,
  };
  for (const id of ['type1', 'iommufd', 'dma-buf'] as const) t.false(ids(unloaded).includes(id), id);
  const alone = ids({ facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } } });
  for (const id of ['map-file', 'device-files', 'dma-buf'] as const) t.false(alone.includes(id), id);
});

test('reports everything outside of a recorded /sys as unknown', (t) => {
  const diagnosis = diagnosed(t, { top: undefined, facts: { probes: 'unknown' } });
  for (const id of ['kernel', 'type1', 'iommufd', 'memlock', 'mappings', 'free', 'backend'] as const) {
    t.is(one(diagnosis, id).state, 'unknown', id);
  }
  for (const id of ['iommu', 'interrupt-remapping', 'vfio'] as const) t.is(one(diagnosis, id).state, 'ok', id);
  t.is(found(diagnosis, 'bar')[0]?.bar?.exportable, 'unknown');

  const bare = diagnosed(t, { machine: UNBOUND.replaceAll(/ (?:group|iommu)=\S+/g, ''), sys: '', top: undefined });
  for (const id of ['iommu', 'vfio', 'huge-pages'] as const) t.is(one(bare, id).state, 'unknown', id);
});

test('reports invalid files of /sys as a warning', (t) => {
  const sys = `${SYS}\n[bus/pci/devices/0000:00:1f.0]\nclass = many\nvendor = 0x8086`;
  const finding = one(diagnosed(t, { sys }), 'sysfs');
  t.is(finding.state, 'warning');
  t.regex(finding.text, /^1 file of \S+ is invalid$/);
  t.regex(finding.evidence, /0000:00:1f\.0\/class holds "many"/);
});

test('names the first eight of many invalid files, and the number of the others', (t) => {
  const odd = Array.from({ length: 20 }, (_, index) => `[bus/pci/devices/0000:05:${index + 10}.0]\nclass = many`);
  const finding = one(diagnosed(t, { sys: `${SYS}\n${odd.join('\n')}` }), 'sysfs');
  t.regex(finding.text, /^20 files of /);
  t.is(finding.evidence.match(/holds "many"/g)?.length, 8);
  t.regex(finding.evidence, / and 12 more$/);
});

test('diagnoses a machine with any line removed and any character changed', (t) => {
  const property = fc.property(damage, damage, (ofSys, ofTop) =>
    untilDone((scope) => {
      const root = expandTree(scope, damaged(`${describeMachine(MACHINE)}\n${SYS}`, ofSys));
      const host = readHost(root);
      const system = readSystem({ sys: root, top: expandTree(scope, damaged(TOP, ofTop)) }, host);
      const probes = { type1: 'opened', iommufd: { mapsFiles: true } } as const;
      const facts = { host, system, probes, ram: 64n << 30n, seesAllProcesses: true };
      const { machine, devices } = diagnosisOf(facts, [...host.functions.keys()]);
      const all = [...machine, ...devices.flatMap(({ findings }) => findings)];
      return all.every(
        ({ text, evidence }) => text !== '' && evidence !== '' && !/undefined|NaN/.test(text + evidence),
      );
    }),
  );
  fc.assert(property, { numRuns: 60 });
  t.pass();
});
