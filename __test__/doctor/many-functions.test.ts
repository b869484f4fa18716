/**
 * Counts of lookups: the doctor's work grows with devices, not with their pairs.
 */
import test, { type ExecutionContext } from 'ava';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import type { Diagnosis } from '../../ts/doctor/finding.ts';
import { Counted, counted } from '../support/counted.ts';
import { TOP, factsOf } from './support.ts';

type Group = (index: number) => string;

/**
 * A card whose virtual functions are bound to VFIO. Each has a physical function of its own, or all have one. The
 * machine has many open files.
 */
function card(count: number, group: Group, physical: (index: number) => string, driver: string): string {
  const functions = Array.from({ length: count }, (_, index) => {
    const [device, number] = [((index + 8) >> 3).toString(16).padStart(2, '0'), index & 7];
    const bar = `bar0=mem64:64K@0x${(0x9000_0000 + index * 0x1_0000).toString(16)}`;
    const physfn = physical(index);
    const other = physfn === '' ? '' : `physfn=${physfn}`;
    return `    ${device}.${number} 8086:1889 endpoint class=020000 driver=${driver} ${bar} group=${group(index)} ${other}`;
  });
  const head = ['cpu intel 6', 'iommu dmar0 intel 48', 'host 0000:00 iommu=dmar0'];
  const port = '  01.0 8086:2030 root-port bus=01-01 group=1 driver=pcieport';
  const first = '    00.0 8086:1888 endpoint class=020000 driver=vfio-pci group=2';
  return [...head, port, first, ...functions].join('\n');
}

/** Lookups per function, and characters of the findings about each. */
function costs(t: ExecutionContext, count: number, machine: string): { reads: number; letters: number } {
  let read = 0;
  const note = (): void => {
    read += 1;
  };
  const open = Array.from({ length: count }, (_, index) => `[proc/${index + 5000}]\ncomm = x\nfd/3 -> /dev/null`);
  const facts = factsOf(t, { machine, top: `${TOP}\n${open.join('\n')}` });
  const { host, system } = facts;
  const functions = new Counted(host.functions);
  const groups = new Counted(
    [...host.groups].map(([number, group]) => [number, { ...group, members: counted(group.members, note) }]),
  );
  const openFiles = system.openFiles === 'unknown' ? system.openFiles : counted(system.openFiles, note);
  const diagnosis: Diagnosis = diagnosisOf(
    { ...facts, host: { ...host, functions, groups }, system: { ...system, openFiles } },
    undefined,
  );
  t.is(diagnosis.devices.length, count + 1);
  const reads = (functions.reads + groups.reads + read) / count;
  return {
    reads,
    letters:
      JSON.stringify(
        diagnosis.devices.map(({ findings }) => findings),
        withoutBigints,
      ).length / count,
  };
}

function withoutBigints(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value;
}

const groups: Record<string, Group> = { apart: (index) => String(index + 3), together: () => '3' };
const physical: Record<string, Group> = { one: () => '0000:01:00.0', none: () => '' };

for (const [how, group] of Object.entries(groups)) {
  for (const [whose, physfn] of Object.entries(physical)) {
    for (const driver of ['vfio-pci', 'iavf']) {
      const name = `groups ${how}, physical function ${whose}, driver ${driver}`;
      test(`lookups and text of a device do not grow with the number of devices: ${name}`, (t) => {
        const [few, many] = [8, 48].map((count) => costs(t, count, card(count, group, physfn, driver)));
        if (few === undefined || many === undefined) throw new Error('two machines');
        t.true(many.reads <= few.reads + 1, `${few.reads} reads a function, ${many.reads} with six times as many`);
        t.true(many.letters <= few.letters * 1.2, `${few.letters} letters a function, then ${many.letters}`);
      });
    }
  }
}
