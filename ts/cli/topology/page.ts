/**
 * The HTML of the page of `peerdma topology`. It has the picture of the tree, the matrix as a table, reasons,
 * prerequisites and notes; its script in `ts/web/topology` describes the selected pair.
 */
import type { HostMachine, PeerCell, PeerMatrix } from '../../host.ts';
import { bridgesAbove } from '../../host.ts';
import { htmlPage } from '../html.ts';
import { escape } from '../markup.ts';
import type { PageData, PairData } from './data.ts';
import { Footnotes, allPrerequisites, allNotes, bypassTexts } from './footnotes.ts';
import { VERDICTS } from './matrix-lines.ts';
import { cellsByPair } from './pairs.ts';
import { pictureOfTree } from './svg.ts';
import type { IdsText } from './pci-ids.ts';
import { ACS_LEGEND, barText, functionKind } from './pci-text.ts';

/** Returns the HTML document. */
export function topologyPage(host: HostMachine, matrix: PeerMatrix, idsText: IdsText): string {
  const data: PageData = Object.fromEntries(matrix.cells.map((cell) => [pairOf(cell), pairData(host, cell)]));
  return htmlPage('topology', { title: 'PCI topology', body: bodyHtml(host, matrix, idsText), data });
}

function bodyHtml(host: HostMachine, matrix: PeerMatrix, idsText: IdsText): string {
  const tree = pictureOfTree(host, matrix, idsText);
  return `<main>
<h1>PCI topology</h1>
<p>${host.functions.size} functions, ${host.groups.size} IOMMU groups, ${host.iommus.size} IOMMUs</p>
<h2>Tree</h2>
<div class="card">
<svg width="${tree.width}" height="${tree.height + 4}" viewBox="-2 -2 ${tree.width + 4} ${tree.height + 4}">
${tree.body}
</svg>
</div>
<p>${escape(ACS_LEGEND)}. Lines are links: speed in GT/s x lanes.</p>
${matrix.cells.length === 0 ? '' : matrixHtml(host, matrix)}
${listHtml('Prerequisites', allPrerequisites(matrix))}
${listHtml('Notes', allNotes(matrix))}
${listHtml('Bypasses the IOMMU: keep guest memory off these addresses', bypassTexts(matrix))}
${listHtml(
  'Invalid contents of /sys',
  host.findings.map(({ path, problem }) => `${path} ${problem}`),
)}
${devicesHtml(host, matrix, idsText)}
</main>`;
}

function matrixHtml(host: HostMachine, matrix: PeerMatrix): string {
  const { devices } = matrix;
  const footnotes = new Footnotes(matrix);
  const cellOf = cellsByPair(matrix);
  const head = devices.map(
    (address, index) =>
      `<th><b>${index + 1}</b><br><small><code>${escape(address.replace(/^0000:/, ''))}</code></small></th>`,
  );
  const rows = devices.map((initiator, index) => {
    const device = host.functions.get(initiator);
    const kind = device === undefined ? '' : functionKind(device);
    const row = devices.map((target) => {
      const cell = cellOf(initiator, target);
      if (cell === undefined) return '<td class="self"></td>';
      const star = cell.prerequisites.length > 0 ? '*' : '';
      return `<td><button class="pair ${cell.verdict}" data-pair="${escape(pairOf(cell))}">${VERDICTS[cell.verdict].word} <small>${footnotes.of(cell)}${star}</small></button></td>`;
    });
    return `<tr><th class="address"><b>${index + 1}</b> ${escape(initiator)} <small>${escape(kind)}</small></th>${row.join('')}</tr>`;
  });
  const legend = Object.entries(VERDICTS).map(
    ([verdict, { word, means }]) => `<span class="${verdict}">${word}</span>${escape(means)} &nbsp; `,
  );
  const notes = footnotes.all.map(({ text }) => `<li>${escape(text)}</li>`);
  return `<h2>Peer-to-peer: DMA of the row's device into a BAR of the column's</h2>
<div class="card matrix">
<div><table><thead><tr><th></th>${head.join('')}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>
<div id="why"></div>
</div>
<p class="legend">${legend.join('')}* has prerequisites</p>
<h2>Reasons</h2>
<ol>${notes.join('')}</ol>`;
}

function listHtml(title: string, texts: readonly string[]): string {
  if (texts.length === 0) return '';
  return `<h2>${escape(title)}</h2>\n<ul>${texts.map((text) => `<li>${escape(text)}</li>`).join('')}</ul>`;
}

function devicesHtml(host: HostMachine, { devices }: PeerMatrix, idsText: IdsText): string {
  const rows = devices.flatMap((address) => {
    const device = host.functions.get(address);
    if (device === undefined) return [];
    const { driver, group, powerState, resetMethods, bars, numaNode } = device;
    const reset = resetMethods === 'unknown' ? 'unknown' : resetMethods.join(', ') || 'none';
    const facts = [
      `${functionKind(device)}, ${idsText(device)}`,
      driver ?? 'none',
      group ?? 'none',
      powerState,
      reset,
      numaNode ?? '',
    ];
    const list = bars.map((bar) => escape(barText(bar))).join('<br>');
    return [
      `<tr><td class="address">${escape(address)}</td>${facts.map((fact) => `<td>${escape(String(fact))}</td>`).join('')}<td>${list}</td></tr>`,
    ];
  });
  if (rows.length === 0) return '';
  const titles = ['', 'device', 'driver', 'group', 'power', 'reset', 'NUMA', 'BARs'].map(
    (title) => `<th>${title}</th>`,
  );
  return `<h2>Devices</h2>\n<div class="card"><table class="facts"><thead><tr>${titles.join('')}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function pairOf({ initiator, target }: PeerCell): string {
  return `${initiator} ${target}`;
}

function pairData(host: HostMachine, cell: PeerCell): PairData {
  const texts = (reasons: PeerCell['reasons']): string[] => reasons.map(({ text }) => text);
  const ends = [cell.initiator, cell.target].flatMap((address) => host.functions.get(address) ?? []);
  return {
    title: `${cell.initiator} → ${cell.target}: ${VERDICTS[cell.verdict].means}`,
    reasons: texts(cell.reasons),
    prerequisites: texts(cell.prerequisites),
    notes: texts(cell.notes),
    bars: cell.bars.map(({ index, problem }) => `BAR ${index}: ${problem ?? 'can be mapped'}`),
    path: ends.flatMap((device) => [device, ...bridgesAbove(host, device)]).map(({ address }) => address),
  };
}
