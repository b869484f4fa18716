/**
 * Counts of reads: the cost of a matrix grows with its cells.
 */
import test, { type ExecutionContext } from 'ava';
import { matrixLines } from '../../ts/cli/topology/matrix-lines.ts';
import { topologyPage } from '../../ts/cli/topology/page.ts';
import { topologySvg } from '../../ts/cli/topology/svg.ts';
import { treeOf } from '../../ts/cli/topology/tree.ts';
import { type HostMachine, type PeerMatrix, peerCandidates, peerMatrix } from '../../ts/host.ts';
import { matrixParts } from '../../ts/host/peer-to-peer/matrix.ts';
import { Counted, counted } from '../support/counted.ts';
import { hostOf } from './support.ts';

/** A port with virtual functions below it. All are in one group with devices of the host, or each in its own. */
function manyFunctions(t: ExecutionContext, count: number, group: (index: number) => string): HostMachine {
  const functions = Array.from({ length: count }, (_, index) => {
    const [device, number] = [(index >> 3).toString(16).padStart(2, '0'), index & 7];
    const bar = `bar0=mem64:64K@0x${(0x9000_0000 + index * 0x1_0000).toString(16)}`;
    const driver = index % 4 === 3 ? 'driver=iavf' : 'driver=vfio-pci';
    return `    ${device}.${number} 8086:1889 endpoint class=020000 ${driver} ${bar} group=${group(index)}`;
  });
  const head = ['cpu intel 6', 'host 0000:00', '  00.0 8086:2020 class=060000'];
  const port = '  01.0 8086:2030 root-port bus=01-01 group=1 driver=pcieport';
  return hostOf(t, [...head, port, ...functions].join('\n'));
}

/** Reads per cell, of the functions and of the members of groups. */
function readsOf(host: HostMachine, use: (host: HostMachine) => PeerMatrix): number {
  let members = 0;
  const functions = new Counted(host.functions);
  const groups = new Counted(
    [...host.groups].map(([number, group]) => [number, { ...group, members: counted(group.members, () => members++) }]),
  );
  const matrix = use({ ...host, functions, groups });
  return (functions.reads + groups.reads + members) / matrix.cells.length;
}

const apart = (index: number): string => String(index + 2);
const together = (): string => '2';

test('the reads of a function by a matrix do not grow with the number of functions', (t) => {
  for (const group of [apart, together]) {
    const few = readsOf(manyFunctions(t, 16, group), (host) => peerMatrix(host, peerCandidates(host)));
    const many = readsOf(manyFunctions(t, 64, group), (host) => peerMatrix(host, peerCandidates(host)));
    t.true(many <= few, `${few} reads a cell, ${many} with four times the functions`);
  }
});

test('the parts of a matrix are computed when they are read, and equal the matrix', (t) => {
  const host = manyFunctions(t, 64, apart);
  const functions = new Counted(host.functions);
  const parts = matrixParts({ ...host, functions }, peerCandidates(host));
  const before = functions.reads;
  const [first] = parts.cells;
  const one = functions.reads - before;
  const all = [...parts.cells];
  t.true(functions.reads - before > 50 * Math.max(one, 1), `${one} reads for a cell`);
  const matrix = peerMatrix(host, peerCandidates(host));
  t.deepEqual(first, matrix.cells[0]);
  t.deepEqual({ ...parts, cells: all, bypasses: [...parts.bypasses] }, matrix);
});

test('the reads of a cell by printing and drawing do not grow with the number of cells', (t) => {
  const paint = (_: unknown, text: string): string => text;
  const uses: Record<string, (host: HostMachine, matrix: PeerMatrix) => unknown> = {
    text: (host, matrix) => matrixLines(host, matrix, 100, paint),
    svg: (host, matrix) => topologySvg(host, matrix, () => ''),
    html: (host, matrix) => topologyPage(host, matrix, () => ''),
  };
  for (const [name, use] of Object.entries(uses)) {
    const reads = [16, 64].map((count) => {
      const host = manyFunctions(t, count, apart);
      const matrix = peerMatrix(host, peerCandidates(host));
      let read = 0;
      use(host, { ...matrix, cells: counted(matrix.cells, () => read++) });
      return read / matrix.cells.length;
    });
    t.true((reads[1] ?? 0) <= (reads[0] ?? 0), `${name}: ${reads.join(', ')} reads a cell`);
  }
});

test('the reads of a function by a tree do not grow with the number of functions', (t) => {
  const [few = 0, many = 0] = [16, 128].map((count) => {
    const host = manyFunctions(t, count, apart);
    const functions = new Counted(host.functions);
    treeOf({ ...host, functions }, undefined);
    return functions.reads / count;
  });
  t.true(many <= few, `${few} reads a function, ${many} with eight times as many`);
});

test('prints lists of thousands of footnotes', (t) => {
  const host = manyFunctions(t, 160, apart);
  const matrix = peerMatrix(host, peerCandidates(host));
  const reasons = (initiator: string, target: string) => [
    { code: 'iommu-first' as const, text: `from ${initiator} to ${target} ${'a word '.repeat(80)}` },
  ];
  const cells = matrix.cells.map((cell) => ({ ...cell, reasons: reasons(cell.initiator, cell.target) }));
  const lines = matrixLines(host, { ...matrix, cells }, 60, (_, text) => text);
  t.true(lines.length > 125_000, `${lines.length} lines, more than a call takes arguments`);
});

test('a group with many devices of the host is described by its first members', (t) => {
  const host = manyFunctions(t, 64, together);
  const [first] = peerMatrix(host, peerCandidates(host)).cells;
  const { text = '' } = first?.prerequisites.find(({ code }) => code === 'group-not-viable') ?? {};
  t.regex(text, /0000:01:00\.3 \(iavf\), .* and 8 more of it$/);
});
