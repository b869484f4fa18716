/**
 * Formats the matrix for a terminal: rows are initiators, columns are targets. Wide matrices are cut into blocks.
 */
import { type HostMachine, type PeerMatrix, type PeerVerdict, peerCliques } from '../../host.ts';
import { Footnotes, allPrerequisites, allNotes, bypassTexts } from './footnotes.ts';
import { type Paint, fit, item } from '../lines.ts';
import { cellsByPair } from './pairs.ts';
import { functionKind } from './pci-text.ts';

/** Word, style and meaning of each verdict. */
export const VERDICTS: Readonly<
  Record<PeerVerdict, { word: string; style: 'green' | 'cyan' | 'red' | 'yellow'; means: string }>
> = {
  yes: { word: 'yes', style: 'green', means: 'directly, without the host bridge' },
  'host-bridge': { word: 'host', style: 'cyan', means: 'through the host bridge, which forwards' },
  no: { word: 'no', style: 'red', means: 'never' },
  unknown: { word: '?', style: 'yellow', means: 'unknown' },
};
const CELL = 9;
const LABEL = 37;

export function matrixLines(host: HostMachine, matrix: PeerMatrix, width: number, paint: Paint): string[] {
  const footnotes = new Footnotes(matrix);
  const legend = Object.values(VERDICTS).map(({ word, style, means }) => `${paint(style, word)} ${means}`);
  const bypasses = 'bypasses the IOMMU: keep guest memory off these addresses';
  // Not `push(...)`: a call has a limit of some hundred thousand arguments, and the matrix has n² reasons.
  return [
    paint('bold', 'peer-to-peer: can the device of the row do DMA to the device of the column?'),
    ...tableLines(host, matrix, footnotes, width, paint),
    '',
    legend.slice(0, 2).join(' · '),
    `${legend.slice(2).join(' · ')} · a number refers to the reason, * to a prerequisite`,
    '',
    ...footnotes.all.flatMap(({ number, text }) => item(`${String(number).padStart(3)}  `, text, width)),
    ...list('* prerequisites', allPrerequisites(matrix), width, paint),
    ...list('notes', allNotes(matrix), width, paint),
    ...list(bypasses, bypassTexts(matrix), width, paint),
    ...list('cliques: devices that reach each other in both directions', cliqueTexts(matrix), width, paint),
  ];
}

function cliqueTexts(matrix: PeerMatrix): string[] {
  return peerCliques(matrix).cliques.map(({ number, devices }) => `${number}: ${devices.join(' ')}`);
}

function tableLines(
  host: HostMachine,
  matrix: PeerMatrix,
  footnotes: Footnotes,
  width: number,
  paint: Paint,
): string[] {
  const { devices } = matrix;
  const cellOf = cellsByPair(matrix);
  const most = Math.max(1, Math.floor((width - LABEL) / CELL));
  const lines: string[] = [];
  for (let first = 0; first < devices.length; first += most) {
    const shown = devices.slice(first, first + most);
    const head = shown.map((_, index) => fit(String(first + index + 1), CELL)).join('');
    lines.push('', paint('dim', (' '.repeat(LABEL) + head).trimEnd()));
    for (const [row, initiator] of devices.entries()) {
      const device = host.functions.get(initiator);
      const kind = device === undefined ? '' : functionKind(device);
      const label = fit(`${String(row + 1).padStart(2)} ${initiator} ${kind}`, LABEL - 1);
      const line = shown.map((target) => {
        const cell = cellOf(initiator, target);
        if (cell === undefined) return paint('dim', '·') + ' '.repeat(CELL - 1);
        const { word, style } = VERDICTS[cell.verdict];
        const note = ` ${footnotes.of(cell)}${cell.prerequisites.length > 0 ? '*' : ''}`;
        return paint(style, word) + fit(note, CELL - word.length);
      });
      lines.push(`${label} ${line.join('')}`.trimEnd());
    }
  }
  return lines;
}

/** Returns the lines of a list with a title; none for an empty list. */
export function list(title: string, texts: readonly string[], width: number, paint: Paint): string[] {
  if (texts.length === 0) return [];
  return ['', paint('bold', title), ...texts.flatMap((text) => item('  - ', text, width))];
}
