/**
 * Creates elements of the page. Inserts text as text nodes only, because names come from untrusted files.
 */

/** Returns an element of the initial page. */
export function elementById(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element #${id}`);
  return found;
}

/** Creates an element with CSS classes and contents. */
export function makeElement(tag: string, look: string, ...contents: readonly (string | Node)[]): HTMLElement {
  const element = document.createElement(tag);
  if (look !== '') element.className = look;
  element.append(...contents);
  return element;
}

/** Creates a button. */
export function makeButton(look: string, text: string, act: () => void): HTMLElement {
  const button = makeElement('button', look, text);
  button.setAttribute('type', 'button');
  button.addEventListener('click', act);
  return button;
}
