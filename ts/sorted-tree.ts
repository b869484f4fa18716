/**
 * The sorted tree of the package sorted-btree, which is CommonJS with an ES default inside it.
 */
import BTreeModule from 'sorted-btree';

/** @internal */
export const SortedTree: typeof BTreeModule.default = BTreeModule.default;
/** @internal */
export type SortedTree<K, V> = BTreeModule.default<K, V>;
