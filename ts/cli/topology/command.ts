/**
 * `peerdma topology`: the PCI tree of a host and which device can reach which.
 */
import { writeFileSync } from 'node:fs';
import { PeerDmaError } from '../../errors.ts';
import { type Host, type PeerMatrix, functionAt, peerCandidates, peerMatrix, readHost } from '../../host/index.ts';
import { type Command, type Invocation, UsageError } from '../command.ts';
import { topologyJson } from './json.ts';
import { paintFor } from '../lines.ts';
import { list, matrixLines } from './matrix-lines.ts';
import { topologyPage } from './page.ts';
import { topologySvg } from './svg.ts';
import { treeOf } from './tree.ts';
import { treeLines } from './tree-lines.ts';

const USAGE = `peerdma topology [--all] [--sysfs DIR] [--json] [--svg FILE] [--html FILE] [DEVICE…]

The PCI tree with IOMMU groups, ACS and links, and for each ordered pair of devices whether DMA of the one reaches a BAR
of the other: yes, through the host bridge, no, or that it can't be known; with the reason. Run it as root: others are not
shown what decides.

  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0: the matrix is of these. Else of those that VFIO has, if it has
               two or more, and of all that do DMA if not.
  --all        the whole tree, where it would be shortened to what the matrix is of
  --sysfs DIR  another machine's /sys, copied
  --json       all that was read and the matrix, as JSON
  --svg FILE   a picture
  --html FILE  a page that stands for itself, with the reasons

Exit status: 0; 1 where /sys has what makes no sense, or a DEVICE is not there.
`;
/** Longer trees are shortened to what the matrix is of. */
const MOST_LINES = 40;
const WIDTH = 100;

export const topologyCommand: Command = {
  summary: 'PCI tree, IOMMU groups, and which device can do DMA to which',
  usage: USAGE,
  options: {
    all: { type: 'boolean' },
    sysfs: { type: 'string' },
    json: { type: 'boolean' },
    svg: { type: 'string' },
    html: { type: 'string' },
  },
  async run({ values, positionals }, { stdout }) {
    const host = readHost(fileOf(values, 'sysfs') ?? '/sys');
    const devices =
      positionals.length > 0 ? positionals.map((text) => functionAt(host, text).address) : peerCandidates(host);
    const matrix = peerMatrix(host, devices);
    const [svg, html] = [fileOf(values, 'svg'), fileOf(values, 'html')];
    if (svg !== undefined) save(svg, topologySvg(host, matrix));
    if (html !== undefined) save(html, topologyPage(host, matrix));
    if (values['json'] === true) stdout.write(topologyJson(host, matrix));
    else if (svg === undefined && html === undefined) stdout.write(text(host, matrix, values['all'] === true, stdout));
    return host.findings.length === 0 ? 0 : 1;
  },
};

function fileOf(values: Invocation['values'], name: string): string | undefined {
  const value = values[name];
  if (value === '') throw new UsageError(`--${name} takes a name`);
  return typeof value === 'string' ? value : undefined;
}

function save(file: string, content: string): void {
  try {
    writeFileSync(file, content);
  } catch (error) {
    const { code: errno, message } = error as NodeJS.ErrnoException;
    throw new PeerDmaError('ERR_SYSTEM', `can't write ${file}: ${message}`, { errno, cause: error });
  }
}

function text(host: Host, matrix: PeerMatrix, all: boolean, stdout: NodeJS.WritableStream): string {
  const paint = paintFor(stdout);
  const shorten = !all && host.functions.size > MOST_LINES;
  const lines = treeLines(host, treeOf(host, shorten ? new Set(matrix.devices) : undefined), WIDTH, paint);
  lines.push('', ...(matrix.cells.length > 0 ? matrixLines(host, matrix, WIDTH, paint) : [noPairs(matrix)]));
  const blind = [...host.functions.values()].some(({ configBytes }) => configBytes > 0 && configBytes < 256);
  if (blind)
    lines.push('', paint('yellow', 'ACS, ATS and the types of ports are for root to read: as root this says more'));
  const findings = host.findings.map(({ path, problem }) => `${path} ${problem}`);
  lines.push(...list('makes no sense', findings, WIDTH, paint));
  return `${lines.join('\n')}\n`;
}

function noPairs({ devices }: PeerMatrix): string {
  return `peer-to-peer takes two devices: there ${devices.length === 1 ? 'is one' : 'are none'} that do DMA`;
}
