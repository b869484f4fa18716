/**
 * Config spaces of devices, from the text files beside this one. Their lines are `size N`, `region INDEX LENGTH` and
 * `OFFSET: BYTES`, with optional comments behind `#`. Missing bytes are 0.
 */
import { readFileSync } from 'node:fs';

export interface Recorded {
  readonly bdf: string;
  readonly bytes: Uint8Array;
  readonly regionLengths: readonly (bigint | undefined)[];
}

/** Those of QEMU's devices. */
export const RECORDED = ['edu', 'ivshmem', 'nvme', 'igb', 'e1000e', 'virtio-rng'] as const;
/** Written by hand, with features that QEMU's devices lack. */
export const WRITTEN = ['written-nic', 'written-gpu', 'written-conventional'] as const;

export function recorded(name: (typeof RECORDED)[number] | (typeof WRITTEN)[number]): Recorded {
  let bytes = new Uint8Array(256);
  const regionLengths: (bigint | undefined)[] = Array.from({ length: 7 }, () => undefined);
  const file = readFileSync(new URL(`${name}.txt`, import.meta.url), 'utf8');
  for (const line of file.split('\n')) {
    const [text = ''] = line.split('#');
    const words = text.trim().split(/\s+/);
    const [first = '', second = '', third = ''] = words;
    if (first === '') continue;
    if (first === 'size') bytes = new Uint8Array(Number(second));
    else if (first === 'region') regionLengths[Number(second)] = BigInt(third);
    else if (/^[0-9a-f]{3}:$/.test(first)) {
      bytes.set(
        words.slice(1).map((word) => Number.parseInt(word, 16)),
        Number.parseInt(first, 16),
      );
    } else throw new Error(`${name}.txt: not understood: ${line}`);
  }
  return { bdf: '0000:01:00.0', bytes, regionLengths };
}
