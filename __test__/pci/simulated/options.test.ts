// Options that no PCI function can have are rejected before anything is created.
import { readdirSync } from 'node:fs';
import test from 'ava';
import { AddressRange, type ErrorCode, MemoryFile } from '../../../ts/index.ts';
import type { SimulatedDeviceOptions } from '../../../ts/pci/simulated/options.ts';
import { SimulatedBus } from '../../../ts/pci/simulated/simulated-bus.ts';
import { SimulatedDevice } from '../../../ts/pci/simulated/simulated-device.ts';
import { throwsCode } from '../../support/errors.ts';

const BDF = '0000:00:06.0';
const MIB = 1n << 20n;
const registers = { read: () => new Uint8Array(4), write: () => {} };
const bar = { index: 0, length: MIB } as const;
/** Options that a caller without types could pass. */
const wrong = (value: unknown): never => value as never;

const REFUSED: Readonly<Record<string, [ErrorCode, Omit<SimulatedDeviceOptions, 'bdf'>]>> = {
  'BARs that are not a list': ['ERR_INVALID_ARGUMENT', { bars: wrong(3) }],
  'a BAR that is not an object': ['ERR_INVALID_ARGUMENT', { bars: wrong([null]) }],
  'BAR 6': ['ERR_INVALID_ARGUMENT', { bars: [{ index: 6, length: MIB }] }],
  'BAR -1': ['ERR_INVALID_ARGUMENT', { bars: [{ index: -1, length: MIB }] }],
  'a BAR twice': ['ERR_OVERLAP', { bars: [bar, bar] }],
  'a BAR in the upper half of another': [
    'ERR_OVERLAP',
    {
      bars: [
        { index: 1, length: MIB },
        { index: 0, length: MIB, kind: 'memory64' },
      ],
    },
  ],
  'a 64-bit BAR in the last register': ['ERR_OUT_OF_RANGE', { bars: [{ index: 5, length: MIB, kind: 'memory64' }] }],
  'another kind': ['ERR_INVALID_ARGUMENT', { bars: [{ ...bar, kind: wrong('memory') }] }],
  'no bytes': ['ERR_EMPTY_RANGE', { bars: [{ index: 0, length: 0n, kind: 'io' }] }],
  'a negative length': ['ERR_INVALID_ARGUMENT', { bars: [{ index: 0, length: -1n }] }],
  'a length that is not a bigint': ['ERR_INVALID_ARGUMENT', { bars: [{ index: 0, length: wrong(4096) }] }],
  'more than 2 GiB in 32 bits': ['ERR_OUT_OF_RANGE', { bars: [{ index: 0, length: (1n << 31n) + 1n }] }],
  'more than 256 bytes of I/O': ['ERR_OUT_OF_RANGE', { bars: [{ index: 0, length: 257n, kind: 'io' }] }],
  'a host address that is not aligned': ['ERR_UNALIGNED', { bars: [{ ...bar, hostAddress: 0x1000n }] }],
  'a host address of another type': ['ERR_INVALID_ARGUMENT', { bars: [{ ...bar, hostAddress: -MIB }] }],
  'a host address beyond 32 bits': ['ERR_OUT_OF_RANGE', { bars: [{ ...bar, hostAddress: 1n << 32n }] }],
  'a host address beyond 64 bits': [
    'ERR_OUT_OF_RANGE',
    { bars: [{ ...bar, kind: 'memory64', hostAddress: 1n << 64n }] },
  ],
  'contents of another type': ['ERR_INVALID_ARGUMENT', { bars: [{ ...bar, contents: wrong({ length: MIB }) }] }],
  'an area past the end': ['ERR_OUT_OF_RANGE', { bars: [{ ...bar, mmapAreas: [AddressRange.of(MIB - 1n, 2n)] }] }],
  'areas that are not a list': ['ERR_INVALID_ARGUMENT', { bars: [{ ...bar, mmapAreas: wrong([[0n, MIB]]) }] }],
  'registers that can be mapped': [
    'ERR_INVALID_ARGUMENT',
    { bars: [{ ...bar, registers, mmapAreas: [AddressRange.of(0n, MIB)] }] },
  ],
  'I/O that can be mapped': [
    'ERR_INVALID_ARGUMENT',
    { bars: [{ index: 0, length: 256n, kind: 'io', mmapAreas: [AddressRange.of(0n, 256n)] }] },
  ],
  'a ROM of 32 MiB': ['ERR_OUT_OF_RANGE', { rom: { length: 32n * MIB } }],
  'a ROM with more contents than its length': [
    'ERR_OUT_OF_RANGE',
    { rom: { length: 1n, contents: Uint8Array.of(1, 2) } },
  ],
  'a config space of 60 bytes': ['ERR_INVALID_ARGUMENT', { config: new Uint8Array(60) }],
  'a config space both recorded and built': ['ERR_INVALID_ARGUMENT', { config: new Uint8Array(256), msi: {} }],
  'a vendor of 17 bits': ['ERR_INVALID_ARGUMENT', { ids: { vendor: 0x10000 } }],
  'a class of 25 bits': ['ERR_INVALID_ARGUMENT', { ids: { class: 0x1000000 } }],
  '3 messages': ['ERR_INVALID_ARGUMENT', { msi: { vectors: 3 } }],
  '64 messages': ['ERR_INVALID_ARGUMENT', { msi: { vectors: 64 } }],
  'no vector of MSI-X': ['ERR_INVALID_ARGUMENT', { bars: [bar], msix: { vectors: 0, bar: 0 } }],
  'an invalid number of vectors': ['ERR_INVALID_ARGUMENT', { bars: [bar], msix: { vectors: NaN, bar: 0 } }],
  '2049 vectors of MSI-X': ['ERR_INVALID_ARGUMENT', { bars: [bar], msix: { vectors: 2049, bar: 0 } }],
  'MSI-X in a missing BAR': ['ERR_INVALID_ARGUMENT', { bars: [bar], msix: { vectors: 1, bar: 1 } }],
  'MSI-X in an I/O BAR': [
    'ERR_INVALID_ARGUMENT',
    { bars: [{ index: 0, length: 256n, kind: 'io' }], msix: { vectors: 1, bar: 0 } },
  ],
  'MSI-X past the end': ['ERR_OUT_OF_RANGE', { bars: [bar], msix: { vectors: 2, bar: 0, tableOffset: MIB - 24n } }],
  'pending bits past the end': ['ERR_OUT_OF_RANGE', { bars: [bar], msix: { vectors: 1, bar: 0, pendingOffset: MIB } }],
  'MSI-X beyond 32 bits': [
    'ERR_OUT_OF_RANGE',
    { bars: [{ index: 0, length: 1n << 33n, kind: 'memory64' }], msix: { vectors: 1, bar: 0, tableOffset: 1n << 32n } },
  ],
  'MSI-X that is not aligned': ['ERR_UNALIGNED', { bars: [bar], msix: { vectors: 1, bar: 0, tableOffset: 4n } }],
  'an invalid IOMMU': ['ERR_INVALID_ARGUMENT', { iommu: wrong({ read: () => {} }) }],
  'an invalid bus': ['ERR_INVALID_ARGUMENT', { bus: wrong('bus') }],
};

for (const [name, [code, options]] of Object.entries(REFUSED)) {
  test(`rejects ${name}`, (t) => {
    const { message } = throwsCode(t, () => new SimulatedDevice({ bdf: BDF, ...options }), code);
    t.true(message.length > 20, message);
  });
}

test('rejects invalid PCI addresses', (t) => {
  for (const bdf of ['', '00:06.0', '0000:00:20.0', '0000:00:06.8', '0000:0g:06.0', ' 0000:00:06.0', undefined]) {
    throwsCode(t, () => new SimulatedDevice({ bdf: wrong(bdf) }), 'ERR_INVALID_ARGUMENT', String(bdf));
  }
  throwsCode(t, () => new SimulatedDevice(wrong(undefined)), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => SimulatedDevice.edu(wrong(undefined)), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => SimulatedDevice.edu({ bdf: 'edu' }), 'ERR_INVALID_ARGUMENT');
});

test('rejects contents that are too short or closed', (t) => {
  const contents = MemoryFile.create(MIB);
  t.teardown(() => contents.close());
  throwsCode(
    t,
    () => new SimulatedDevice({ bdf: BDF, bars: [{ index: 0, length: 2n * MIB, contents }] }),
    'ERR_OUT_OF_RANGE',
  );
  throwsCode(
    t,
    () => new SimulatedDevice({ bdf: BDF, bars: [{ ...bar, contents, registers }] }),
    'ERR_INVALID_ARGUMENT',
  );
  contents.close();
  throwsCode(t, () => new SimulatedDevice({ bdf: BDF, bars: [{ ...bar, contents }] }), 'ERR_CLOSED');
});

test.serial('leaves nothing behind when a device cannot be created', (t) => {
  const bus = new SimulatedBus();
  const open = (): number => readdirSync('/proc/self/fd').length;
  const rom = { length: 4096n, contents: new Uint8Array(4096) };
  const before = open();
  for (let round = 0; round < 20; round++) {
    // The kernel rejects the second: files cannot be that long.
    const bars = [bar, { index: 2, length: 1n << 63n, kind: 'memory64' }] as const;
    t.throws(() => new SimulatedDevice({ bdf: BDF, bars, rom, bus }));
  }
  t.true(open() < before + 10);
  t.deepEqual(bus.devices, []);
});
