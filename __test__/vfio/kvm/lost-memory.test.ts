/**
 * Guest memory that the host has lost while it is mapped.
 */
import test from 'ava';
import { ftruncateSync } from 'node:fs';
import { AddressRange, MemoryFile, PeerDmaError } from '../../../ts/index.ts';
import { truncatableFile } from '../../support/truncatable-file.ts';
import { CAN_LOSE_PAGES, losePage } from '../support/lost-page.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, smallGuest } from './support/small-guest.ts';

const START = 0x8000_0000n;
const LENGTH = 0x4000n;
const PRESENT = 0x2000n;

for (const [title, access] of [
  ['reads', (code: Code) => code.load(8)],
  ['writes', (code: Code) => code.store(8)],
] as const) {
  test.serial(`a guest that ${title} past the end of a truncated file fails its run, with the place`, async (t) => {
    const { fd, file } = truncatableFile(t, LENGTH);
    const code = access(access(new Code().rbx(START)).rbx(START + PRESENT + 8n)).out(END_PORT);
    const { memory, vm } = await smallGuest(t, code);
    const region = await memory.regions.addRegion({ name: 'high', range: AddressRange.of(START, LENGTH) });
    await region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: { file, offset: 0n } });
    await region.mapToGuest();
    ftruncateSync(fd, Number(PRESENT));
    const error = await t.throwsAsync(vm.run(), { instanceOf: PeerDmaError });
    t.is(error.code, 'ERR_CPU_FAILED');
    // The processor finds it missing, or KVM does, which then asks for the access as for one without memory.
    const places = ['"high" at 0x80000000..0x80004000 is missing', 'of 8 bytes at address 0x80002008 failed'];
    t.true(
      places.some((place) => error.message.includes(place)),
      error.message,
    );
    t.regex(error.message, /processor 0.* rip=0x1001[7a] .*bytes at rip: /);
  });
}

for (const [title, access] of [
  ['reads', (code: Code) => code.load(8)],
  ['writes', (code: Code) => code.store(8)],
] as const) {
  const run = CAN_LOSE_PAGES ? test.serial : test.serial.skip;
  run(`a guest that ${title} a page with an uncorrectable error fails its run, with the place`, async (t) => {
    using file = MemoryFile.create(LENGTH, { name: `poisoned-${title}` });
    const code = access(access(new Code().rbx(START)).rbx(START + PRESENT + 8n)).out(END_PORT);
    const { memory, vm } = await smallGuest(t, code);
    const region = await memory.regions.addRegion({ name: 'high', range: AddressRange.of(START, LENGTH) });
    await region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: { file, offset: 0n } });
    await region.mapToGuest();
    losePage(`memfd:poisoned-${title}`, PRESENT);
    const error = await t.throwsAsync(vm.run(), { instanceOf: PeerDmaError, code: 'ERR_CPU_FAILED' });
    t.regex(error.message, /the host's memory at 0x80002000 has an uncorrectable error/);
    t.regex(error.message, /processor 0.* rip=0x1001[7a] .*bytes at rip: /);
  });
}
