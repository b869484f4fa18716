/**
 * Formats the tree for a terminal.
 */
import type { HostMachine, PciFunction } from '../../host.ts';
import { type Paint, fit, wrap } from '../lines.ts';
import type { IdsText } from './pci-ids.ts';
import type { TreeNode, TreeRoot } from './tree.ts';
import { ACS_LEGEND, acsLetters, iommuText, isLinkDegraded, functionKind, linkText } from './pci-text.ts';

/** Widths of the columns after the tree. A space precedes each. */
const COLUMNS = { group: 5, driver: 12, link: 14, acs: 7 };
const BEHIND = Object.values(COLUMNS).reduce((sum, width) => sum + width + 1, 0);

/** The text of the nodes. */
interface NodeStyle {
  /** Width of the tree, which is left of the columns. */
  readonly left: number;
  readonly paint: Paint;
  readonly idsText: IdsText;
}

export function treeLines(
  host: HostMachine,
  roots: readonly TreeRoot[],
  { width, paint, idsText }: { width: number; paint: Paint; idsText: IdsText },
): string[] {
  const left = width - BEHIND;
  const head = columns('', { group: 'group', driver: 'driver', link: 'link', acs: 'ACS' }, left);
  const lines = [paint('dim', head)];
  for (const { bus, iommu, nodes, hidden } of roots) {
    const unit = iommu === undefined ? undefined : host.iommus.get(iommu);
    const title = `host bridge ${bus}${unit === undefined ? '' : ` · IOMMU ${iommuText(unit)}`}`;
    const more = hidden === 0 ? '' : ` · ${hidden} more (--all)`;
    lines.push(paint('bold', title) + paint('dim', more));
    lines.push(
      ...nodes.flatMap((node, index) => nodeLines(node, '', index === nodes.length - 1, { left, paint, idsText })),
    );
  }
  if (roots.length > 0) lines.push('', ...wrap(ACS_LEGEND, width).map((line) => paint('dim', line)));
  return lines;
}

function nodeLines({ device, children }: TreeNode, lead: string, last: boolean, style: NodeStyle): string[] {
  const { left, paint, idsText } = style;
  const branch = `${lead}${last ? '└─' : '├─'} `;
  const text = `${device.address} ${functionKind(device)} · ${idsText(device)}`;
  const cells = {
    group: device.group === undefined ? '-' : String(device.group),
    driver: device.driver ?? '-',
    link: linkText(device).replace(' of ', '/'),
    acs: acsLetters(device),
  };
  const line = columns(branch + text, cells, left);
  const below = `${lead}${last ? '   ' : '│  '}`;
  return [
    colour(line, branch, device, left, paint),
    ...children.flatMap((child, index) => nodeLines(child, below, index === children.length - 1, style)),
  ];
}

function columns(text: string, cells: Record<keyof typeof COLUMNS, string>, left: number): string {
  const behind = Object.entries(COLUMNS).map(([name, size]) => fit(cells[name as keyof typeof COLUMNS], size));
  return [fit(text, left), ...behind].join(' ').trimEnd();
}

/** Styles a finished line, so that the escape sequences do not move its columns. */
function colour(line: string, branch: string, { address, link }: PciFunction, left: number, paint: Paint): string {
  const at = branch.length;
  const tree =
    paint('dim', branch) + paint('bold', line.slice(at, at + address.length)) + line.slice(at + address.length, left);
  const linkAt = left + COLUMNS.group + COLUMNS.driver + 3;
  const [before, shown, after] = [
    line.slice(left, linkAt),
    line.slice(linkAt, linkAt + COLUMNS.link),
    line.slice(linkAt + COLUMNS.link),
  ];
  return tree + before + (link !== undefined && isLinkDegraded(link) ? paint('yellow', shown) : shown) + after;
}
