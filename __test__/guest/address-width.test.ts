// The width of guest-physical addresses, and the number of guests that fit into a process.
import test from 'ava';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { PAGE } from '../support/pages.ts';

const [MiB, GiB, TiB] = [1n << 20n, 1n << 30n, 1n << 40n];

test('32 guests fit into one process, each with a target that needs host memory', async (t) => {
  const guests: GuestMemory[] = [];
  t.teardown(() => Promise.all(guests.map((memory) => memory.close())));
  for (let n = 0; n < 32; n++) {
    const memory = await GuestMemory.create({ ram: [{ start: 0n, length: MiB }] });
    guests.push(memory);
    const iommu = new SimulatedIommu();
    await memory.dmaMappers.addDmaMapper(iommu);
    iommu.write(0n, Uint8Array.of(n));
  }
  t.deepEqual(
    guests.map((memory) => memory.read(0n, 1)[0]),
    guests.map((_, n) => n),
  );
});

for (const [title, ram, width] of [
  ['no RAM', undefined, 40],
  ['RAM that ends at half of 40 bits', [{ start: TiB / 2n - PAGE, length: PAGE }], 40],
  ['RAM that ends a page above half of 40 bits', [{ start: TiB / 2n, length: PAGE }], 41],
  ['the highest RAM first', [{ start: 3n * TiB, length: PAGE }, { start: 0n, length: PAGE }], 43], // prettier-ignore
  ['RAM that ends at half of 46 bits', [{ start: 32n * TiB - PAGE, length: PAGE }], 46],
  ['RAM in the last page of 46 bits', [{ start: 64n * TiB - PAGE, length: PAGE }], 46],
] as const) {
  test(`the default address width leaves the upper half of the addresses to BARs: ${title}`, async (t) => {
    await using memory = await GuestMemory.create(ram === undefined ? {} : { ram });
    t.is(memory.inspect().addressWidth, width);
  });
}

test('uses the address width that is given, also when RAM fills all of it', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: GiB }], addressWidth: 30 });
  t.is(memory.inspect().addressWidth, 30);
});

test('an address past the width is rejected with the width that it needs', async (t) => {
  await using memory = await GuestMemory.create();
  const region = (start: bigint) => memory.regions.addRegion({ name: 'r', range: AddressRange.of(start, PAGE) });
  const needs = /at 0x\w+\.\.0x\w+ passes the end of the guest's 40-bit address space\. Give GuestMemory\.create an/;
  const beyond = await rejectsCode(t, region(TiB), 'ERR_OUT_OF_RANGE');
  t.regex(beyond.message, needs);
  t.regex(beyond.message, /addressWidth of 41 or more$/);
  t.regex((await rejectsCode(t, region(32n * TiB), 'ERR_OUT_OF_RANGE')).message, /addressWidth of 46 or more$/);
  t.regex((await rejectsCode(t, region(64n * TiB), 'ERR_OUT_OF_RANGE')).message, /Place it below 0x400000000000: /);
  const bar = throwsCode(t, () => memory.newDeviceMemory({ name: 'b', length: 2n * TiB }), 'ERR_OUT_OF_RANGE');
  t.regex(bar.message, /addressWidth of 41 or more$/);
  const window = memory.newDeviceMemory({ name: 'b', length: TiB });
  await rejectsCode(t, window.mapToGuest(TiB), 'ERR_OUT_OF_RANGE');
  await window.mapToGuest(0n);

  const ram = [{ start: 64n * TiB, length: PAGE }];
  t.regex((await rejectsCode(t, GuestMemory.create({ ram }), 'ERR_OUT_OF_RANGE')).message, /46 bits at most/);
});
