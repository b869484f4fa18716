/**
 * Reads the data of a page and creates its elements. Inserts text as text nodes only: names come from untrusted files.
 */

/** Returns the data that the program has embedded in the page. */
export function readData<T>(): T {
  return JSON.parse(elementById('data').textContent ?? '') as T;
}

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
