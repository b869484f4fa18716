/**
 * Builds the page of `peerdma topology`: the picture of the tree, the matrix as a table, reasons, prerequisites and
 * notes. The page is one file; its content security policy forbids all requests.
 */
import type { HostMachine, PeerCell, PeerMatrix } from '../../host.ts';
import { bridgesAbove } from '../../host.ts';
import { Footnotes, allPrerequisites, allNotes, bypassTexts } from './footnotes.ts';
import { escape, scriptData } from './markup.ts';
import { VERDICTS } from './matrix-lines.ts';
import { STYLE } from './style.ts';
import { cellsByPair } from './pairs.ts';
import { pictureOfTree } from './svg.ts';
import { ACS_LEGEND, barText, idsText, functionKind } from './pci-text.ts';

const PAGE_STYLE = `
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 1400px; margin: 0 auto; padding: 28px 24px 60px }
h1 { font-size: 22px; margin: 0 0 4px } h2 { font-size: 16px; margin: 28px 0 10px }
p { margin: 4px 0; color: var(--soft) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px; overflow-x: auto }
code, td.address, th.address { font: 12px ui-monospace, "DejaVu Sans Mono", monospace }
table { border-collapse: separate; border-spacing: 3px }
th { font-weight: 500; text-align: left; padding: 2px 8px; white-space: nowrap } th small { color: var(--soft) }
th b { color: var(--peer) } thead th { text-align: center }
.pair { border: 0; border-radius: 6px; padding: 5px 9px; min-width: 64px; font: inherit; font-weight: 600; cursor: pointer; white-space: nowrap; width: 100% }
.pair small { font-weight: 400; opacity: .8 }
.pair[aria-pressed=true] { outline: 2px solid var(--peer) }
.yes { background: var(--yes-bg); color: var(--yes) } .host-bridge { background: var(--host-bg); color: var(--host) }
.no { background: var(--no-bg); color: var(--no) } .unknown { background: var(--unknown-bg); color: var(--unknown) }
.self { background: var(--line); opacity: .35; border-radius: 6px }
.matrix { display: grid; grid-template-columns: minmax(0, auto) minmax(280px, 1fr); gap: 24px; align-items: start }
@media (max-width: 900px) { .matrix { grid-template-columns: 1fr } }
.matrix > div { overflow-x: auto }
#why { border-left: 3px solid var(--line); padding-left: 16px } #why h3 { margin: 0 0 6px; font-size: 14px } #why ul { margin: 4px 0 12px; padding-left: 18px }
ul, ol { margin: 0; padding-left: 22px } li { margin: 3px 0 }
.facts td, .facts th { padding: 3px 12px 3px 0; vertical-align: top; border-bottom: 1px solid var(--line) } .facts { border-spacing: 0; width: 100% } .facts thead th { text-align: left; color: var(--soft) }
svg .on-path rect { stroke: var(--peer); stroke-width: 2.5 } svg.aimed .box:not(.on-path) { opacity: .45 }
.legend span { border-radius: 6px; padding: 2px 8px; margin-right: 8px; font-weight: 600 }
`;

const SCRIPT = `
const why = document.getElementById('why'), svg = document.querySelector('svg');
const list = (title, texts) => {
  if (texts.length === 0) return [];
  const head = document.createElement('h3'), items = document.createElement('ul');
  head.textContent = title;
  for (const text of texts) items.append(Object.assign(document.createElement('li'), { textContent: text }));
  return [head, items];
};
const show = (button, aim) => {
  for (const each of document.querySelectorAll('.pair')) each.setAttribute('aria-pressed', String(each === button));
  const cell = CELLS[button.dataset.pair];
  why.replaceChildren(
    ...list(cell.title, cell.reasons), ...list('Prerequisites', cell.prerequisites), ...list('Notes', cell.notes), ...list('BARs of the target', cell.bars),
  );
  svg.classList.toggle('aimed', aim);
  for (const box of svg.querySelectorAll('[data-address]')) box.classList.toggle('on-path', aim && cell.path.includes(box.dataset.address));
};
for (const button of document.querySelectorAll('.pair')) {
  button.addEventListener('click', () => show(button, true));
  button.addEventListener('mouseenter', () => show(button, true));
  button.addEventListener('focus', () => show(button, true));
}
const first = document.querySelector('.pair');
if (first) show(first, false);
`;

/** Returns the HTML document. */
export function topologyPage(host: HostMachine, matrix: PeerMatrix): string {
  const footnotes = new Footnotes(matrix);
  const tree = pictureOfTree(host, matrix);
  const cells = Object.fromEntries(matrix.cells.map((cell) => [pairOf(cell), cellData(host, cell)]));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>PCI topology</title>
<style>${STYLE}${PAGE_STYLE}</style>
</head>
<body>
<main>
<h1>PCI topology</h1>
<p>${host.functions.size} functions, ${host.groups.size} IOMMU groups, ${host.iommus.size} IOMMUs</p>
<h2>Tree</h2>
<div class="card">
<svg width="${tree.width}" height="${tree.height + 4}" viewBox="-2 -2 ${tree.width + 4} ${tree.height + 4}">
${tree.body}
</svg>
</div>
<p>${escape(ACS_LEGEND)}. Lines are links: speed in GT/s x lanes.</p>
${matrix.cells.length === 0 ? '' : matrixHtml(host, matrix, footnotes)}
${listHtml('Prerequisites', allPrerequisites(matrix))}
${listHtml('Notes', allNotes(matrix))}
${listHtml('Bypasses the IOMMU: keep guest memory off these addresses', bypassTexts(matrix))}
${listHtml(
  'Invalid contents of /sys',
  host.findings.map(({ path, problem }) => `${path} ${problem}`),
)}
${devicesHtml(host, matrix)}
</main>
<script>const CELLS = ${scriptData(cells)};${SCRIPT}</script>
</body>
</html>
`;
}

function matrixHtml(host: HostMachine, matrix: PeerMatrix, footnotes: Footnotes): string {
  const { devices } = matrix;
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

function devicesHtml(host: HostMachine, { devices }: PeerMatrix): string {
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

/** Returns the data of a pair for the script of the page. */
function cellData(host: HostMachine, cell: PeerCell): Record<string, unknown> {
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
