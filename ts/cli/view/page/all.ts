/**
 * All functions of the page that need a browser. They become the script of the page as they are, so a module here has
 * functions alone, exports each, and knows nothing but functions of the page.
 */
export * from './dom.ts';
export * from './draw.ts';
export * from './keys.ts';
export * from './lists.ts';
export * from './panel.ts';
export * from './start.ts';
export * from './timeline.ts';
