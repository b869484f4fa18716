/**
 * The sorted tree of the package sorted-btree, as every runtime and bundler imports it.
 */
import imported from 'sorted-btree';

// sorted-btree is CommonJS with `__esModule` set. Its default import is `module.exports` in Node, Deno, esbuild and
// webpack, and `exports.default` in Bun, vitest and rollup.
const tree: typeof imported | typeof imported.default = imported;

/** @internal */
export const SortedTree: typeof imported.default = 'default' in tree ? tree.default : tree;
/** @internal */
export type SortedTree<K, V> = imported.default<K, V>;
