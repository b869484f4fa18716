/**
 * 1:1 mappings and VF tokens: the doctor and the matrix apply the same rules.
 */
import test, { type ExecutionContext } from 'ava';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import type { DoctorFinding } from '../../ts/doctor/finding.ts';
import { type HostMachine, type PeerCell, peerMatrix } from '../../ts/host.ts';
import { factsOf } from '../doctor/support.ts';
import { at, cell, codes, hostOf } from './support.ts';

const [INITIATOR, TARGET] = ['01:00.0', '02:00.0'] as const;

interface Wish {
  /** A line for the IOMMU. */
  readonly iommu?: string | undefined;
  /** Kind of a reserved range of the initiator's group. */
  readonly reserved?: string | undefined;
  /** Properties of the initiator. */
  readonly initiator?: string;
  readonly kernel?: HostMachine['kernel'];
}

function machine(t: ExecutionContext, { iommu, reserved, initiator, kernel = 'unknown' }: Wish): HostMachine {
  const text = `
cpu intel 6
${iommu ?? ''}
${reserved === undefined ? '' : `reserved 20 0x00000000000e8000 0x00000000000e8fff ${reserved}`}
host 0000:00 ${iommu === undefined ? '' : `iommu=${iommu.split(' ')[1]}`}
  01.0 8086:352a root-port bus=01-01 group=1 driver=pcieport
    00.0 10de:2330 endpoint class=030200 group=20 ${initiator ?? 'driver=vfio-pci'} bar0=pref64:16M@0x22000000000
  02.0 8086:352a root-port bus=02-02 group=2 driver=pcieport
    00.0 15b3:101e endpoint class=020000 group=21 driver=vfio-pci bar0=pref64:32M@0x28000000000
`;
  return { ...hostOf(t, text), kernel };
}

function pairOf(host: HostMachine): PeerCell {
  return cell(peerMatrix(host, [`0000:${INITIATOR}`, `0000:${TARGET}`]), INITIATOR, TARGET);
}

/** The doctor's findings about the initiator of the same machine, with the kernel of the host. */
function findingsOf(t: ExecutionContext, host: HostMachine): readonly DoctorFinding[] {
  const facts = factsOf(t);
  const { kernel: known } = facts.system;
  if (known === 'unknown') throw new Error('the fixture has a kernel');
  const kernel = host.kernel === 'unknown' ? host.kernel : { ...known, ...host.kernel };
  const system = { ...facts.system, kernel };
  return diagnosisOf({ ...facts, host, system }, [`0000:${INITIATOR}`]).devices[0]?.findings ?? [];
}

const KERNELS = ['unknown', { major: 6, minor: 5 }, { major: 6, minor: 6 }, { major: 7, minor: 3 }] as const;
const IOMMUS = { none: undefined, intel: 'iommu dmar0 intel 48', amd: 'iommu ivhd0 amd', other: 'iommu smmu3 arm' };

test('the matrix and the doctor agree on which kernels keep a device with a 1:1 mapping', (t) => {
  const kept: Record<string, string[]> = {};
  for (const [kind, iommu] of Object.entries(IOMMUS)) {
    for (const kernel of KERNELS) {
      const version = kernel === 'unknown' ? kernel : `${kernel.major}.${kernel.minor}`;
      const name = `${kind}, ${version}`;
      const host = machine(t, { iommu, reserved: 'direct', kernel });
      const { prerequisites, notes, verdict } = pairOf(host);
      const need = prerequisites.find(({ code }) => code === 'direct-regions');
      const note = notes.find(({ code }) => code === 'direct-regions');
      const finding = findingsOf(t, host).find(({ id }) => id === 'direct-regions');
      t.is(finding?.text, (need ?? note)?.text, name);
      t.is(finding?.state, need === undefined ? 'warning' : 'blocked', name);
      t.is(need === undefined, note !== undefined, `${name}: in one of the two lists`);
      t.not(verdict, 'no', 'a verdict is about the machine');
      if (need !== undefined) (kept[kind] ??= []).push(version);
    }
  }
  // An unknown kernel counts as a current one.
  t.deepEqual(kept, {
    none: ['unknown', '6.5', '6.6', '7.3'],
    intel: ['unknown', '6.5', '6.6', '7.3'],
    amd: ['unknown', '6.6', '7.3'],
    other: ['unknown', '6.6', '7.3'],
  });
});

test('only a direct range prevents assignment', (t) => {
  for (const reserved of ['direct-relaxable', 'reserved', 'msi', undefined]) {
    const host = machine(t, { iommu: IOMMUS.intel, reserved });
    const { prerequisites, notes } = pairOf(host);
    t.false(codes([...prerequisites, ...notes]).includes('direct-regions'), reserved);
    t.false(
      findingsOf(t, host).some(({ id }) => id === 'direct-regions'),
      reserved,
    );
  }
});

test('the matrix does not recommend to bind a device that the kernel rejects', (t) => {
  const host = machine(t, { reserved: 'direct', initiator: 'driver=nvidia' });
  const { prerequisites } = pairOf(host);
  t.deepEqual(codes(prerequisites), ['direct-regions']);
  t.regex(prerequisites[0]?.text ?? '', /0000:01:00\.0 is in IOMMU group 20.*0xe8000\.\.0xe9000.*another slot$/);
  t.deepEqual(codes(pairOf(machine(t, { initiator: 'driver=nvidia' })).prerequisites), ['not-bound']);
});

test('the matrix and the doctor name the VF token of a function whose physical function is bound to VFIO', (t) => {
  const virtual = (driver: string): HostMachine => {
    const host = machine(t, { initiator: `driver=vfio-pci physfn=0000:${TARGET}` });
    const physical = { ...at(host, TARGET), driver };
    return { ...host, functions: new Map([...host.functions, [physical.address, physical]]) };
  };
  const prerequisites = pairOf(virtual('vfio-pci')).prerequisites;
  t.deepEqual(codes(prerequisites), ['vf-token']);
  t.regex(prerequisites[0]?.text ?? '', /0000:01:00\.0 is a virtual function of 0000:02:00\.0.*VF token.*vfToken/);
  const finding = findingsOf(t, virtual('vfio-pci')).find(({ id }) => id === 'vf-token');
  t.is(finding?.text, prerequisites[0]?.text);
  t.false(codes(pairOf(virtual('mlx5_core')).prerequisites).includes('vf-token'));
});
