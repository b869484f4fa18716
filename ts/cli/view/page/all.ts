/**
 * Exports all functions of the page that need a browser. Their source text becomes the script of the page, so a module
 * in this folder exports all its functions, has nothing else, and uses only functions of the page.
 */
export * from './dom.ts';
export * from './draw.ts';
export * from './keys.ts';
export * from './lists.ts';
export * from './panel.ts';
export * from './start.ts';
export * from './timeline.ts';
