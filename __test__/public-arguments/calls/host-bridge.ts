/**
 * Calls of a PCI host bridge, and of functions that callers implement.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, GuestMemory, PciHostBridge } from '../../../ts/index.ts';
import { type Anything, type Calls, options } from '../values.ts';

const ECAM = AddressRange.of(0xb000_0000n, 1n << 20n);
const WINDOW = AddressRange.of(0xc000_0000n, 1n << 20n);
const BAR = AddressRange.of(0xc000_0000n, 16n);

/** An address that has no function. */
const FREE = '00:05.0';

export async function hostBridgeCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const bridge = new PciHostBridge({ memory, ecam: ECAM, windows: [WINDOW] });
  const create = (given: Anything): PciHostBridge => new PciHostBridge(given);
  const func = {
    configRead: () => 0,
    configWrite: () => undefined,
    decodedBars: [BAR],
    mmioRead: (_: bigint, length: number) => new Uint8Array(length),
    mmioWrite: () => undefined,
  };
  /** Adds a function, accesses all of it, and removes it. */
  const use = async (given: Anything): Promise<void> => {
    bridge.add(FREE, given);
    try {
      const config = ECAM.start + (5n << 15n);
      await bridge.mmioRead(config, 4);
      await bridge.mmioWrite(config, new Uint8Array(4));
      await bridge.mmioRead(BAR.start, 4);
      await bridge.mmioWrite(BAR.start, new Uint8Array(4));
    } finally {
      bridge.remove(FREE);
    }
  };
  const results = ['configRead', 'configWrite', 'mmioRead', 'watchBars'];
  const parts = options({ ...func, watchBars: undefined, memory: undefined }, use);
  return {
    'new PciHostBridge': {
      ...options({ memory, ecam: ECAM, windows: [WINDOW] }, create),
      'one of windows': (value) => create({ windows: [value] }),
    },
    'PciHostBridge#add': {
      address: (value) => bridge.add(value, { ...func }),
      ...parts,
      ...Object.fromEntries(
        results.map((name) => [`${name}()`, (value: Anything) => use({ ...func, [name]: () => value })]),
      ),
      'one of decodedBars': (value) => use({ ...func, decodedBars: [value] }),
    },
    'PciHostBridge#remove': { address: (value) => bridge.remove(value) },
    'PciHostBridge#portRead': {
      port: (value) => bridge.portRead(value, 4),
      size: (value) => bridge.portRead(0xcfc, value),
    },
    'PciHostBridge#portWrite': {
      port: (value) => bridge.portWrite(value, 4, 0),
      size: (value) => bridge.portWrite(0xcfc, value, 0),
      value: (value) => bridge.portWrite(0xcfc, 4, value),
    },
    'PciHostBridge#mmioRead': {
      gpa: (value) => bridge.mmioRead(value, 4),
      length: (value) => bridge.mmioRead(0n, value),
    },
    'PciHostBridge#mmioWrite': {
      gpa: (value) => bridge.mmioWrite(value, new Uint8Array(4)),
      bytes: (value) => bridge.mmioWrite(0n, value),
    },
  };
}
