/**
 * `peerdma topology`: the PCI tree of a host and which device can reach which.
 */
import { type Host, type PeerMatrix, functionAt, peerCandidates, peerMatrix, readHost } from '../../host/index.ts';
import { matrixParts } from '../../host/peer-to-peer/matrix.ts';
import { STANDARD_STREAM, deviceArguments, fileOption, isSameFile } from '../arguments.ts';
import { type Command, type Invocation, type Terminal, UsageError } from '../command.ts';
import type { Paint } from '../lines.ts';
import { save } from '../save.ts';
import { topologyJson } from './json.ts';
import { list, matrixLines } from './matrix-lines.ts';
import { topologyPage } from './page.ts';
import { topologySvg } from './svg.ts';
import { treeOf } from './tree.ts';
import { treeLines } from './tree-lines.ts';
import { wholeDocument } from './whole-document.ts';

const USAGE = `peerdma topology [--all] [--sysfs DIR] [--json] [--svg FILE] [--html FILE] [DEVICE…]

The PCI tree with IOMMU groups, ACS and links, and for each ordered pair of devices whether DMA of the one reaches a BAR
of the other: yes, through the host bridge, no, or that it can't be known; with the reason. Run it as root: others are not
shown what decides.

  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0: the matrix is of these. Else of those that VFIO has, if it has
               two or more, and of all that do DMA if not.
  --all        the whole tree, where it would be shortened to what the matrix is of
  --sysfs DIR  another machine's /sys, copied
  --json       all that was read and the matrix, as JSON
  --svg FILE   a picture; - is standard output
  --html FILE  a page that stands for itself, with the reasons; - is standard output

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
  async run({ values, positionals }, terminal) {
    const { stdout } = terminal;
    const { svg, html, sysfs } = filesOf(values);
    const named = deviceArguments(positionals);
    const host = readHost(sysfs ?? '/sys');
    const devices = named.length > 0 ? named.map((text) => functionAt(host, text).address) : peerCandidates(host);
    const whole = (): PeerMatrix => peerMatrix(host, devices);
    if (svg !== undefined || html !== undefined) saveDocuments(host, whole(), { svg, html }, terminal);
    if (values['json'] === true) await stdout.json(topologyJson(host, matrixParts(host, devices)));
    else if (svg === undefined && html === undefined) {
      stdout.lines(textLines(host, whole(), values['all'] === true, stdout.paint));
    }
    return host.findings.length === 0 ? 0 : 1;
  },
};

function saveDocuments(
  host: Host,
  matrix: PeerMatrix,
  { svg, html }: Pick<Files, 'svg' | 'html'>,
  terminal: Terminal,
): void {
  const { length } = matrix.devices;
  if (svg !== undefined) {
    const picture = wholeDocument('the picture', length, () => topologySvg(host, matrix));
    save(svg, picture, terminal);
  }
  if (html !== undefined) {
    const page = wholeDocument('the page', length, () => topologyPage(host, matrix));
    save(html, page, terminal);
  }
}

interface Files {
  readonly svg: string | undefined;
  readonly html: string | undefined;
  readonly sysfs: string | undefined;
}

function filesOf(values: Invocation['values']): Files {
  const [svg, html, sysfs] = [
    fileOption({ values }, 'svg'),
    fileOption({ values }, 'html'),
    fileOption({ values }, 'sysfs'),
  ];
  if (svg !== undefined && html !== undefined && isSameFile(svg, html)) {
    throw new UsageError(`would write the picture and the page to ${svg}: name two files`);
  }
  if (values['json'] === true && [svg, html].includes(STANDARD_STREAM)) {
    throw new UsageError('--json is written to standard output: name a file for --svg and --html');
  }
  return { svg, html, sysfs };
}

function textLines(host: Host, matrix: PeerMatrix, all: boolean, paint: Paint): string[] {
  const shorten = !all && host.functions.size > MOST_LINES;
  const isConfigTruncated = [...host.functions.values()].some(
    ({ configBytes }) => configBytes > 0 && configBytes < 256,
  );
  const hint = paint('yellow', 'ACS, ATS and the types of ports are for root to read: as root this says more');
  const findings = host.findings.map(({ path, problem }) => `${path} ${problem}`);
  return [
    ...treeLines(host, treeOf(host, shorten ? new Set(matrix.devices) : undefined), WIDTH, paint),
    '',
    ...(matrix.cells.length > 0 ? matrixLines(host, matrix, WIDTH, paint) : [noPairs(matrix)]),
    ...(isConfigTruncated ? ['', hint] : []),
    ...list('makes no sense', findings, WIDTH, paint),
  ];
}

function noPairs({ devices }: PeerMatrix): string {
  return `peer-to-peer takes two devices: there ${devices.length === 1 ? 'is one' : 'are none'} that do DMA`;
}
