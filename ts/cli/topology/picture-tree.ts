/**
 * Draws the tree, with a box for each function and a line for each link. Host bridges are at the left, devices at the
 * right. The width of a line grows with the lanes of the link.
 */
import type { HostMachine, PciFunction } from '../../host.ts';
import { escape } from '../markup.ts';
import type { IdsText } from './pci-ids.ts';
import type { TreeNode, TreeRoot } from './tree.ts';
import { acsLetters, barText, iommuText, isLinkDegraded, functionKind, linkText } from './pci-text.ts';

const BOX = { width: 232, height: 58 };
const GAP = { x: 56, y: 16 };
const ROOT = 140;

/** SVG elements and their size. */
export interface Drawing {
  readonly body: string;
  readonly width: number;
  readonly height: number;
}

interface Placed {
  readonly body: string[];
  /** Vertical position of the middle of the box. */
  readonly middle: number;
}

/** The labels of the boxes. */
interface Labels {
  /** Numbers of the devices in the matrix, by address. */
  readonly numbers: ReadonlyMap<string, number>;
  readonly idsText: IdsText;
}

/** Draws the tree. */
export function drawTree(host: HostMachine, roots: readonly TreeRoot[], labels: Labels): Drawing {
  const pen = { y: 0, depth: 0 };
  const body = roots.flatMap((root) => {
    const top = pen.y;
    const children = root.nodes.map((node) => drawNode(node, 0, pen, labels));
    pen.y += GAP.y;
    const middle = middleOf(children, top);
    const wires = children.map((child) => wire(ROOT, middle, columnX(0), child.middle, undefined));
    return [...wires, rootBox(host, root, middle), ...children.flatMap((child) => child.body)];
  });
  return {
    body: body.join('\n'),
    width: columnX(pen.depth) + BOX.width,
    height: Math.max(pen.y - 2 * GAP.y, BOX.height),
  };
}

function drawNode(node: TreeNode, depth: number, pen: { y: number; depth: number }, labels: Labels): Placed {
  pen.depth = Math.max(pen.depth, depth);
  const top = pen.y;
  const children = node.children.map((child) => drawNode(child, depth + 1, pen, labels));
  if (children.length === 0) pen.y += BOX.height + GAP.y;
  const middle = middleOf(children, top);
  const right = columnX(depth) + BOX.width;
  const wires = node.children.map(({ device }, index) =>
    wire(right, middle, columnX(depth + 1), children[index]?.middle ?? middle, device),
  );
  const own = functionBox(node.device, columnX(depth), middle - BOX.height / 2, labels);
  return { middle, body: [...wires, own, ...children.flatMap((child) => child.body)] };
}

function middleOf(children: readonly Placed[], top: number): number {
  const [first, last] = [children[0], children.at(-1)];
  return first === undefined || last === undefined ? top + BOX.height / 2 : (first.middle + last.middle) / 2;
}

function columnX(depth: number): number {
  return ROOT + GAP.x + depth * (BOX.width + GAP.x);
}

function rootBox(host: HostMachine, { bus, iommu }: TreeRoot, middle: number): string {
  const unit = iommu === undefined ? undefined : host.iommus.get(iommu);
  const [name = '', ...facts] = unit === undefined ? [] : iommuText(unit).split(', ');
  return [
    `<g transform="translate(0 ${middle - BOX.height / 2})">`,
    `<rect class="root" width="${ROOT}" height="${BOX.height}" rx="8"/>`,
    `<text class="name" x="12" y="${unit === undefined ? 26 : 22}">${escape(bus)}</text>`,
    `<text class="small" x="12" y="${unit === undefined ? 43 : 37}">host bridge</text>`,
    unit === undefined
      ? ''
      : `<text class="small" x="12" y="50">${escape([name, ...facts.slice(0, 1)].join(', '))}</text>`,
    '</g>',
  ].join('');
}

function functionBox(device: PciFunction, x: number, y: number, { numbers, idsText }: Labels): string {
  const number = numbers.get(device.address);
  const bridge = device.bridge !== undefined;
  const classes = ['box', bridge ? 'bridge' : 'device', ...(number === undefined ? [] : ['peer'])].join(' ');
  const group = device.group === undefined ? '' : `group ${device.group}`;
  const second = bridge ? `ACS ${acsLetters(device)}` : (device.driver ?? 'no driver');
  const name = `${functionKind(device)} · ${idsText(device)}`;
  return [
    `<g class="${classes}" data-address="${escape(device.address)}" transform="translate(${x} ${y})">`,
    `<title>${escape(details(device, name))}</title>`,
    `<rect width="${BOX.width}" height="${BOX.height}" rx="8"/>`,
    number === undefined ? '' : `<text class="number" x="${BOX.width - 12}" y="21">${number}</text>`,
    `<text class="name" x="12" y="21">${escape(device.address)}</text>`,
    `<text class="kind" x="12" y="36">${escape(short(name, 36))}</text>`,
    `<text class="small" x="12" y="50">${escape(short(second, 22))}</text>`,
    `<text class="small end" x="${BOX.width - 12}" y="50">${escape(group)}</text>`,
    '</g>',
  ].join('');
}

/** Draws the line of a link from a box to the next one. */
function wire(fromX: number, fromY: number, toX: number, toY: number, to: PciFunction | undefined): string {
  const bend = fromX + GAP.x / 2 - 14;
  const lanes = to?.link?.width ?? 1;
  const slow = to?.link !== undefined && isLinkDegraded(to.link);
  const path = `<path class="wire${slow ? ' slow' : ''}" stroke-width="${1 + Math.log2(lanes)}" d="M${fromX} ${fromY}H${bend}V${toY}H${toX}"/>`;
  const now = to === undefined ? '' : (linkText(to).split(' of ')[0] ?? '');
  if (now === '') return path;
  return `${path}<text class="link${slow ? ' slow' : ''}" x="${toX - 5}" y="${toY - 6}">${escape(now)}</text>`;
}

function short(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Returns the tooltip of a function. */
function details(device: PciFunction, name: string): string {
  const { address, driver, group, bars, resetMethods, powerState, numaNode, memoryDecode } = device;
  const lines = [
    `${address} ${name}`,
    `driver ${driver ?? 'none'}, ${group === undefined ? 'no IOMMU group' : `IOMMU group ${group}`}`,
    `ACS ${acsLetters(device)}${linkText(device) === '' ? '' : `, link ${linkText(device)} (GT/s x lanes)`}`,
    `power ${powerState}, memory decode ${memoryDecode === 'unknown' ? 'unknown' : memoryDecode ? 'on' : 'off'}${numaNode === undefined ? '' : `, NUMA node ${numaNode}`}`,
    `reset by ${resetMethods === 'unknown' ? 'unknown methods' : resetMethods.join(', ') || 'nothing'}`,
    ...bars.map(barText),
  ];
  return lines.join('\n');
}
