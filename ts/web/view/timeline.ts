/**
 * The timeline of a journal: a slider, step and play buttons, and the text of the current line.
 */
import { elementById, makeElement } from '../dom.ts';
import { drawMoment } from './draw-map.ts';
import { elapsedText } from './elapsed-text.ts';
import { drawLists } from './lists.ts';
import { describeBox } from './panel.ts';
import type { Page } from './state.ts';

/** Adds the event listeners of the controls. */
export function startTimeline(page: Page): void {
  const slider = elementById('slider') as HTMLInputElement;
  slider.max = String(page.moments.length - 1);
  let playing: number | undefined;
  const play = elementById('play');
  const stop = (): void => {
    window.clearInterval(playing);
    playing = undefined;
    play.textContent = '▶ Play';
  };
  const step = (by: number): void => goToMoment(page, page.moment + by);
  slider.addEventListener('input', () => {
    stop();
    goToMoment(page, Number(slider.value));
  });
  elementById('before').addEventListener('click', () => (stop(), step(-1)));
  elementById('after').addEventListener('click', () => (stop(), step(1)));
  play.addEventListener('click', () => {
    if (playing !== undefined) return stop();
    if (page.moment === page.moments.length - 1) goToMoment(page, 0);
    play.textContent = '⏸ Pause';
    playing = window.setInterval(() => {
      step(1);
      if (page.moment === page.moments.length - 1) stop();
    }, 900);
  });
  drawMarks(page);
}

/** Goes to another moment. */
function goToMoment(page: Page, moment: number): void {
  page.moment = Math.min(Math.max(moment, 0), page.moments.length - 1);
  drawAll(page);
}

/** Draws the current moment in all parts of the page. */
export function drawAll(page: Page): void {
  drawMoment(page);
  drawLists(page);
  describeBox(page, page.selected);
  drawTimelineEntry(page);
}

/** Draws the journal line of the current moment. */
function drawTimelineEntry(page: Page): void {
  const { history } = page;
  if (history === undefined) return;
  const line = history.lines[page.moment - 1];
  const slider = elementById('slider') as HTMLInputElement;
  const text = line?.text ?? 'Recording begins.';
  slider.value = String(page.moment);
  slider.setAttribute('aria-valuetext', `${page.moment} of ${page.moments.length - 1}: ${text}`);
  const time = line?.time ?? history.time;
  elementById('when').textContent =
    `${page.moment} / ${page.moments.length - 1} · ${elapsedText(history.time, time)} · ${time}`;
  const what = elementById('what');
  what.textContent = text;
  what.className = line?.error === undefined ? '' : 'error';
  const dma = line?.dma ?? [];
  const details = elementById('dma');
  details.hidden = dma.length === 0;
  const list = details.querySelector('ol');
  list?.replaceChildren(...dma.slice(0, 200).map((text) => makeElement('li', '', text)));
  if (dma.length > 200) list?.append(makeElement('li', '', `and ${dma.length - 200} more`));
  const title = details.querySelector('summary');
  if (title !== null) title.textContent = `Operations of the targets (${dma.length})`;
}

/** Marks the failed changes on the slider. */
function drawMarks(page: Page): void {
  const lines = page.history?.lines ?? [];
  const marks = lines.flatMap(({ error, text }, index) => {
    if (error === undefined) return [];
    const mark = makeElement('i', '');
    mark.style.left = `${((index + 1) / lines.length) * 100}%`;
    mark.title = text;
    return [mark];
  });
  elementById('marks').replaceChildren(...marks);
}
