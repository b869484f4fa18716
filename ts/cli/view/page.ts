/**
 * The HTML of the page of `peerdma view`. Its script in `ts/web/view` draws the map.
 */
import { htmlPage } from '../html.ts';
import { escape } from '../markup.ts';
import type { History, PageData } from './data.ts';

const LEGEND: readonly (readonly [look: string, text: string])[] = [
  ['region ram first last', 'RAM'],
  ['region device first last', 'device memory'],
  ['region hidden first last', 'hidden by another region'],
  ['region trapped first last', 'trapped: no memory, the VMM handles accesses'],
  ['flat read-only', 'read-only for devices'],
  ['target mapped', 'mapped'],
  ['target failed', 'failed'],
  ['target void', 'revoked'],
  ['target skipped', 'skipped, or not given'],
  ['target quarantined', 'quarantined'],
];

/** Returns the HTML document. @param file name of the snapshot or journal */
export function viewPage(file: string, data: PageData): string {
  return htmlPage('view', { title: `${file} · peerdma`, body: bodyHtml(file, data.history), data });
}

function bodyHtml(file: string, history: History | undefined): string {
  return `<header>
<h1>Guest memory <span>${escape(file)}</span></h1>
<ul id="counts"></ul>
<div class="tools">
<label>Explain address <input id="asked" type="text" placeholder="0x1000" spellcheck="false" autocomplete="off"></label>
<label>Zoom <input id="zoom" type="range" min="-3" max="3" step="0.25" value="0"></label>
</div>
<p id="answer" aria-live="polite"></p>
</header>
<section id="timeline" aria-label="Time"${history === undefined ? ' hidden' : ''}>
<div class="buttons">
<button id="before" type="button" aria-label="Previous moment">◀</button>
<button id="play" type="button">▶ Play</button>
<button id="after" type="button" aria-label="Next moment">▶</button>
</div>
<div class="track"><input id="slider" type="range" min="0" max="0" value="0" aria-label="Moment"><div id="marks"></div></div>
<div id="happening">
<p id="what" aria-live="polite"></p>
<p id="when"></p>
<details id="dma" hidden><summary></summary><ol></ol></details>
${hintsOf(history)
  .map((hint) => `<p class="hint">${hint}</p>\n`)
  .join('')}</div>
</section>
<details id="problems" open hidden><summary></summary><ul></ul></details>
<main>
<div id="map"><div id="heads"></div><div id="columns"><div class="gutter"></div></div></div>
<aside id="panel" aria-live="polite" aria-label="Details"></aside>
</main>
<ul id="legend" aria-label="Legend">
${LEGEND.map(([look, text]) => `<li><span class="box ${look}"></span>${text}</li>`).join('\n')}
</ul>
<noscript>The page needs JavaScript to draw the map.</noscript>`;
}

function hintsOf(history: History | undefined): string[] {
  const { cut = false, leftOut = 0 } = history ?? {};
  return [
    ...(leftOut === 0 ? [] : [`The first ${leftOut} lines of the journal are left out.`]),
    ...(cut ? ['The last line of the journal is truncated, and left out.'] : []),
  ];
}
