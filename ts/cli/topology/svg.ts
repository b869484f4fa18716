/**
 * Draws the picture: tree, matrix and reasons in one SVG that loads nothing else.
 */
import type { HostMachine, PeerMatrix } from '../../host.ts';
import { Footnotes, allPrerequisites } from './footnotes.ts';
import { bundledText } from '../html.ts';
import { wrap } from '../lines.ts';
import { escape } from '../markup.ts';
import { VERDICTS } from './matrix-lines.ts';
import type { IdsText } from './pci-ids.ts';
import { drawMatrix } from './picture-matrix.ts';
import { type Drawing, drawTree } from './picture-tree.ts';
import { treeOf } from './tree.ts';

const MARGIN = 32;
const MIN_WIDTH = 860;
/** Approximate width of a character, and height of a line, of the text below the matrix. */
const CHARACTER = 6.3;
const LINE = 18;

/** Draws the tree of the devices of the matrix; the whole tree if the matrix is empty. */
export function pictureOfTree(host: HostMachine, { devices }: PeerMatrix, idsText: IdsText): Drawing {
  const roots = treeOf(host, devices.length === 0 ? undefined : new Set(devices));
  const numbers = new Map(devices.map((address, index) => [address, index + 1]));
  return drawTree(host, roots, { numbers, idsText });
}

/** Returns the SVG document. */
export function topologySvg(host: HostMachine, matrix: PeerMatrix, idsText: IdsText): string {
  const footnotes = new Footnotes(matrix);
  const tree = pictureOfTree(host, matrix, idsText);
  const parts: { title: string; drawing: Drawing }[] = [{ title: 'PCI tree', drawing: tree }];
  if (matrix.cells.length > 0) {
    const squares = drawMatrix(host, matrix, footnotes);
    const width = Math.max(tree.width, squares.width, MIN_WIDTH);
    parts.push({ title: 'Peer-to-peer', drawing: squares });
    parts.push({ title: 'Reasons', drawing: reasons(matrix, footnotes, width) });
  }
  const width = Math.max(MIN_WIDTH, ...parts.map(({ drawing }) => drawing.width)) + 2 * MARGIN;
  let y = MARGIN;
  const body = parts.map(({ title, drawing }) => {
    const top = y + 34;
    const text = `<text class="title" x="${MARGIN}" y="${y + 14}">${title}</text>`;
    y = top + drawing.height + MARGIN;
    return `${text}\n<g transform="translate(${MARGIN} ${top})">\n${drawing.body}\n</g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}">`,
    `<style>${bundledText('picture.css')}</style>`,
    `<rect class="page" width="${width}" height="${y}"/>`,
    ...body,
    '</svg>\n',
  ].join('\n');
}

function reasons(matrix: PeerMatrix, footnotes: Footnotes, width: number): Drawing {
  const lines: string[] = [];
  const most = Math.floor((width - 28) / CHARACTER);
  const put = (mark: string, text: string): void => {
    for (const [index, line] of wrap(text, most).entries()) {
      const y = lines.length * LINE + 12;
      const number = index === 0 ? `<text class="number" x="16" y="${y}">${escape(mark)}</text>` : '';
      lines.push(`${number}<text x="28" y="${y}">${escape(line)}</text>`);
    }
  };
  for (const { number, text } of footnotes.all) put(String(number), text);
  for (const text of allPrerequisites(matrix)) put('*', `prerequisite: ${text}`);
  put(
    '',
    Object.values(VERDICTS)
      .map(({ word, means }) => `${word}: ${means}`)
      .join(' · '),
  );
  return { body: lines.join('\n'), width, height: lines.length * LINE };
}
