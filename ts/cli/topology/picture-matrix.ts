/**
 * Draws the matrix: a rectangle for each pair, coloured by its verdict, with the number of its reason.
 */
import type { Host, PeerCell, PeerMatrix } from '../../host/index.ts';
import type { Footnotes } from './footnotes.ts';
import { escape } from '../markup.ts';
import { VERDICTS } from './matrix-lines.ts';
import { cellsByPair } from './pairs.ts';
import type { Drawing } from './picture-tree.ts';
import { functionKind } from './pci-text.ts';

const CELL = { width: 70, height: 34 };
const LABEL = 290;
const HEAD = 42;

export function drawMatrix(host: Host, matrix: PeerMatrix, footnotes: Footnotes): Drawing {
  const { devices } = matrix;
  const cellOf = cellsByPair(matrix);
  const body = [`<text class="small" x="0" y="${HEAD - 10}">from (row) into a BAR of (column)</text>`];
  for (const [column, address] of devices.entries()) {
    const x = LABEL + column * CELL.width + CELL.width / 2;
    body.push(`<text class="number middle" x="${x}" y="${HEAD - 24}">${column + 1}</text>`);
    body.push(`<text class="tiny middle" x="${x}" y="${HEAD - 9}">${escape(address.replace(/^0000:/, ''))}</text>`);
  }
  for (const [row, initiator] of devices.entries()) {
    const y = HEAD + row * CELL.height;
    const device = host.functions.get(initiator);
    body.push(`<text class="number" x="18" y="${y + 22}">${row + 1}</text>`);
    body.push(`<text class="name" x="30" y="${y + 22}">${escape(initiator)}</text>`);
    const kind = device === undefined ? '' : functionKind(device).replace('virtual function, ', 'VF, ');
    body.push(`<text class="small" x="132" y="${y + 22}">${escape(kind.slice(0, 24))}</text>`);
    for (const [column, target] of devices.entries()) {
      const cell = cellOf(initiator, target);
      body.push(drawCell(cell, LABEL + column * CELL.width, y, cell === undefined ? 0 : footnotes.of(cell)));
    }
  }
  return {
    body: body.join('\n'),
    width: LABEL + devices.length * CELL.width,
    height: HEAD + devices.length * CELL.height,
  };
}

function drawCell(cell: PeerCell | undefined, x: number, y: number, footnote: number): string {
  const size = `x="${x + 2}" y="${y + 2}" width="${CELL.width - 4}" height="${CELL.height - 4}" rx="6"`;
  if (cell === undefined) return `<rect class="self" ${size}/>`;
  const { word } = VERDICTS[cell.verdict];
  const star = cell.prerequisites.length > 0 ? '*' : '';
  const text = [...cell.reasons, ...cell.prerequisites, ...cell.notes].map((each) => each.text);
  return [
    `<g class="cell ${cell.verdict}" data-pair="${escape(`${cell.initiator} ${cell.target}`)}">`,
    `<title>${escape([`${cell.initiator} to ${cell.target}`, ...text].join('\n'))}</title>`,
    `<rect ${size}/>`,
    `<text class="word" x="${x + 10}" y="${y + 22}">${word}</text>`,
    `<text class="foot" x="${x + CELL.width - 9}" y="${y + 22}">${footnote}${star}</text>`,
    '</g>',
  ].join('');
}
