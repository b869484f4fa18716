/**
 * Elements of the page. Text gets in as text alone: names come from files.
 */

/** An element of the page that is there from the beginning. */
export function elementById(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found;
}

/** A new element with a class and text or other elements in it. */
export function makeElement(tag: string, look: string, ...contents: readonly (string | Node)[]): HTMLElement {
  const element = document.createElement(tag);
  if (look !== '') element.className = look;
  element.append(...contents);
  return element;
}

/** A new button. */
export function makeButton(look: string, text: string, act: () => void): HTMLElement {
  const button = makeElement('button', look, text);
  button.setAttribute('type', 'button');
  button.addEventListener('click', act);
  return button;
}
