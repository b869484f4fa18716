/**
 * `peerdma topology`: prints the PCI tree of a host and its peer-to-peer matrix.
 */
import { type HostMachine, type PeerMatrix, functionAt, peerCandidates, peerMatrix, readHost } from '../../host.ts';
import { matrixParts } from '../../host/peer-to-peer/matrix.ts';
import { STANDARD_STREAM, deviceArguments, fileOption, isSameFile } from '../arguments.ts';
import { type Command, type Invocation, type Terminal, UsageError } from '../command.ts';
import type { Paint } from '../lines.ts';
import { save } from '../save.ts';
import { topologyJson } from './json.ts';
import { list, matrixLines } from './matrix-lines.ts';
import { type IdsText, newIdsText } from './pci-ids.ts';
import { topologyPage } from './page.ts';
import { topologySvg } from './svg.ts';
import { treeOf } from './tree.ts';
import { treeLines } from './tree-lines.ts';
import { wholeDocument } from './whole-document.ts';

const USAGE = `peerdma topology [--all] [--sysfs DIR] [--json] [--svg FILE] [--html FILE] [DEVICE…]

Prints the PCI tree with IOMMU groups, ACS and links, and the peer-to-peer matrix: for each initiator and target,
whether DMA of the initiator reaches the BARs of the target (yes, through the host bridge, no, or unknown) and the
reason. Run it as root: other users cannot read the registers that decide.

  DEVICE…      PCI addresses of the matrix, 0000:01:00.0 or 01:00.0. Default: the devices that are bound to VFIO if
               there are two or more, else all devices that do DMA
  --all        prints the whole tree. Default: long trees are shortened to the devices of the matrix
  --sysfs DIR  reads a copy of the /sys of another machine
  --json       prints the host and the matrix as JSON
  --svg FILE   writes a picture; - is standard output
  --html FILE  writes a page that loads nothing else, with the reasons; - is standard output

Exit status: 0 for success. 1 if /sys has invalid contents, or a DEVICE does not exist.
`;
/** Limit of the functions in a complete tree. A longer tree is shortened to the devices of the matrix. */
const MAX_TREE_LINES = 40;
const WIDTH = 100;

/**
 * Creates the command `peerdma topology`.
 *
 * @param idsText formats the IDs of a function
 */
export function topologyCommand(idsText: IdsText = newIdsText()): Command {
  return {
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
      if (svg !== undefined || html !== undefined) {
        saveDocuments({ host, matrix: whole(), idsText }, { svg, html }, terminal);
      }
      if (values['json'] === true) await stdout.json(topologyJson(host, matrixParts(host, devices)));
      else if (svg === undefined && html === undefined) {
        stdout.lines(textLines({ host, matrix: whole(), idsText }, values['all'] === true, stdout.paint));
      }
      return host.findings.length === 0 ? 0 : 1;
    },
  };
}

/** The contents of the text, the picture and the page. */
interface Topology {
  readonly host: HostMachine;
  readonly matrix: PeerMatrix;
  readonly idsText: IdsText;
}

function saveDocuments(
  { host, matrix, idsText }: Topology,
  { svg, html }: Pick<Files, 'svg' | 'html'>,
  terminal: Terminal,
): void {
  const { length } = matrix.devices;
  if (svg !== undefined) {
    const picture = wholeDocument('the picture', length, () => topologySvg(host, matrix, idsText));
    save(svg, picture, terminal);
  }
  if (html !== undefined) {
    const page = wholeDocument('the page', length, () => topologyPage(host, matrix, idsText));
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
    throw new UsageError(`--svg and --html name the same file ${svg}: name two files`);
  }
  if (values['json'] === true && [svg, html].includes(STANDARD_STREAM)) {
    throw new UsageError('--json is written to standard output: name a file for --svg and --html');
  }
  return { svg, html, sysfs };
}

function textLines({ host, matrix, idsText }: Topology, all: boolean, paint: Paint): string[] {
  const shorten = !all && host.functions.size > MAX_TREE_LINES;
  const isConfigTruncated = [...host.functions.values()].some(
    ({ configBytes }) => configBytes > 0 && configBytes < 256,
  );
  const hint = paint('yellow', 'ACS, ATS and port types are unknown: run the command as root to read them');
  const findings = host.findings.map(({ path, problem }) => `${path} ${problem}`);
  return [
    ...treeLines(host, treeOf(host, shorten ? new Set(matrix.devices) : undefined), { width: WIDTH, paint, idsText }),
    '',
    ...(matrix.cells.length > 0 ? matrixLines(host, matrix, WIDTH, paint) : [noPairs(matrix)]),
    ...(isConfigTruncated ? ['', hint] : []),
    ...list('invalid contents of /sys', findings, WIDTH, paint),
  ];
}

function noPairs({ devices }: PeerMatrix): string {
  return `peer-to-peer needs two devices that do DMA: there ${devices.length === 1 ? 'is one' : 'are none'}`;
}
