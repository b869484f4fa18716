/**
 * Reads the nodes of sorted trees, and compares two versions of a tree. Versions share unchanged nodes, so only nodes
 * that differ are read: O(changes × log n) for a tree and a changed clone of it.
 */
import type { SortedTree } from './sorted-tree.ts';

/** An entry that differs. One with both values has the same key in both versions. @internal */
export interface EntryChange<V> {
  /** How many entries of the version before have a lower key. */
  readonly index: number;
  readonly removed?: V;
  readonly added?: V;
}

type Compare<K> = (a: K, b: K) => number;

/** A node of the package sorted-btree, which does not declare its type. */
interface Node<K, V> {
  /** Of a leaf: its keys. Else the highest key of each child. */
  readonly keys: readonly K[];
  readonly values: readonly V[];
  readonly children?: readonly Node<K, V>[];
  size(): number;
}

/** The entries that differ, in order. @internal */
export function treeChanges<K, V>(
  before: SortedTree<K, V>,
  now: SortedTree<K, V>,
  compare: Compare<K>,
): EntryChange<V>[] {
  const changes: EntryChange<V>[] = [];
  const [old, young] = [new Cursor<K, V>(rootOf(before)), new Cursor<K, V>(rootOf(now))];
  for (let [a, b] = [old.next, young.next]; a !== undefined || b !== undefined; [a, b] = [old.next, young.next]) {
    const order = a === undefined ? -1 : b === undefined ? 1 : compare(a.highest, b.highest);
    // The one with the higher key, or both.
    const [removed, added] = [order >= 0 ? a : undefined, order <= 0 ? b : undefined];
    const [oldHeight, youngHeight] = [removed?.height ?? 0, added?.height ?? 0];
    const same = removed?.node === added?.node && removed?.value === added?.value;
    if (!same && oldHeight > 0 && oldHeight >= youngHeight) {
      old.open();
    } else if (!same && youngHeight > 0) {
      young.open();
    } else {
      if (removed !== undefined) old.skip();
      if (added !== undefined) young.skip();
      if (!same) changes.push(changeAt(old.left, removed?.value, added?.value));
    }
  }
  return changes.reverse();
}

function changeAt<V>(index: number, removed: V | undefined, added: V | undefined): EntryChange<V> {
  return { index, ...(removed === undefined ? {} : { removed }), ...(added === undefined ? {} : { added }) };
}

/** How many entries have a lower key. @internal */
export function countBelow<K, V>(tree: SortedTree<K, V>, key: K, compare: Compare<K>): number {
  let count = 0;
  let node: Node<K, V> | undefined = rootOf(tree);
  while (node !== undefined) {
    const at: number = node.keys.findIndex((each) => compare(each, key) >= 0);
    const below: number = at === -1 ? node.keys.length : at;
    const { children }: Node<K, V> = node;
    if (children === undefined) return count + below;
    for (const child of children.slice(0, below)) count += child.size();
    node = children[below];
  }
  return count;
}

/** The values of a tree, in order, in groups. The tree must not change meanwhile. @internal */
export function* valueGroups<K, V>(tree: SortedTree<K, V>): Generator<readonly V[]> {
  const nodes = [rootOf(tree)];
  for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
    const { children } = node;
    // Empty leaves share an array of values, which can have more items.
    if (children === undefined)
      yield node.values.length === node.keys.length ? node.values : node.values.slice(0, node.keys.length);
    else nodes.push(...children.toReversed());
  }
}

function rootOf<K, V>(tree: SortedTree<K, V>): Node<K, V> {
  return (tree as unknown as { readonly _root: Node<K, V> })._root;
}

/** A node, or an entry of a leaf. */
interface Item<K, V> {
  /** The highest key in it. */
  readonly highest: K;
  readonly node?: Node<K, V>;
  readonly value?: V;
  /** Above the entries, which have 0. */
  readonly height: number;
}

/** Walks a tree from its end, by whole nodes until they are opened. */
class Cursor<K, V> {
  readonly #items: Item<K, V>[] = [];
  /** How many entries are not visited. */
  left: number;

  constructor(root: Node<K, V>) {
    this.left = root.size();
    let height = 1;
    for (let { children } = root; children?.[0] !== undefined; { children } = children[0]) height++;
    if (this.left > 0) this.#push(root, height);
  }

  /** The current node or entry. */
  get next(): Item<K, V> | undefined {
    return this.#items.at(-1);
  }

  /** Skips the current node or entry. */
  skip(): void {
    const item = this.#items.pop();
    this.left -= item?.node?.size() ?? 1;
  }

  /** Replaces the current node by its contents. */
  open(): void {
    const { node, height } = this.#items.pop() as Item<K, V>; // the caller has checked that it is a node
    const { children, keys, values } = node as Node<K, V>;
    if (children !== undefined) for (const child of children) this.#push(child, height - 1);
    else for (const [at, highest] of keys.entries()) this.#items.push({ highest, value: values[at] as V, height: 0 });
  }

  #push(node: Node<K, V>, height: number): void {
    this.#items.push({ highest: node.keys.at(-1) as K, node, height }); // only the root of an empty tree is empty
  }
}
