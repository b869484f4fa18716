/**
 * Maps and lists that count how often they are read.
 */

/** A map that counts what is looked up in it and gone through. */
export class Counted<K, V> extends Map<K, V> {
  reads = 0;

  override get(key: K): V | undefined {
    this.reads++;
    return super.get(key);
  }

  override *values(): MapIterator<V> {
    for (const value of super.values()) {
      this.reads++;
      yield value;
    }
  }
}

/** A list that counts reads of its elements. */
export function counted<T>(list: readonly T[], note: () => void): readonly T[] {
  return new Proxy(list, {
    get(target, key, receiver) {
      if (typeof key === 'string' && /^\d+$/.test(key)) note();
      return Reflect.get(target, key, receiver) as unknown;
    },
  });
}
