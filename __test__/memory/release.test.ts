/**
 * Large memory is released beside the event loop. Its addresses are free at once, and its pages when the promise
 * settles.
 */
import { NativeMemoryFile, NativePrivateMemory, NativeReservation, memorySettled } from '#native';
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { GuestMemory, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';

const LENGTH = 64n << 20n;
const PAGE = 4096n;
const BINDING = fileURLToPath(new URL('../../ts/native/binding.js', import.meta.url));

/** Mappings and descriptors of a file in this process. */
function held(name: string): number[] {
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the folder itself
    }
  });
  return [maps, links].map((lines) => lines.filter((line) => line.includes(name)).length);
}

test('frees the addresses of a large file at once, and its pages when memory has settled', async (t) => {
  const name = 'release-placed';
  const reservation = new NativeReservation(40);
  const file = NativeMemoryFile.create(LENGTH, name, 0);
  reservation.mapFile(0n, LENGTH, file, 0n, true, false);
  await reservation.ensureMappedAsync(BigUint64Array.of(0n, LENGTH));
  reservation.unmap(0n, LENGTH);
  t.throws(() => reservation.lease(BigUint64Array.of(0n, PAGE)), { code: 'ERR_VA_NOT_MAPPED' });
  const other = new NativePrivateMemory(LENGTH, false);
  reservation.mapPrivate(0n, LENGTH, other, 0n);
  file.close();
  await memorySettled();
  t.deepEqual(held(name), [0, 0]);
  reservation.unmap(0n, LENGTH);
  other.close();
  reservation.close();
  await memorySettled();
});

test('releases all memory before the promise of GuestMemory.close settles', async (t) => {
  const name = 'release-guest';
  const file = MemoryFile.create(LENGTH, { name });
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: LENGTH, file, prefault: true }] });
  file.close();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  t.true((held(name)[1] ?? 0) > 0);
  await memory.close();
  t.deepEqual(held(name), [0, 0]);
});

/** Runs a program with the native core, and returns its status and output. */
function run(program: string): unknown[] {
  const args = ['-e', `const binding = ${JSON.stringify(BINDING)}; ${program}`];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000 });
  return [status, signal, stdout.trim(), stderr.trim()];
}

const GIVE_BACK = `
  const { NativeMemoryFile, NativeReservation } = require(binding);
  const [length, all] = [256n << 20n, BigUint64Array.of(0n, 256n << 20n)];
  const file = NativeMemoryFile.create(length, 'given', 0);
  const reservation = new NativeReservation(40);
  reservation.mapFile(0n, length, file, 0n, true, false);
  reservation.ensureMapped(all);
  reservation.close();
  file.close();`;

test('a process can end while its memory is being released', (t) => {
  t.deepEqual(run(`${GIVE_BACK} console.log('given');`), [0, null, 'given', '']);
  t.deepEqual(run(`${GIVE_BACK} process.exit(3);`), [3, null, '', '']);
});

test('a worker thread and its native core can end while its memory is being released', (t) => {
  const worker = JSON.stringify(`const binding = ${JSON.stringify(BINDING)}; ${GIVE_BACK}`);
  const program = `
    const { Worker } = require('node:worker_threads');
    const once = () => new Promise((end) => new Worker(${worker}, { eval: true }).on('exit', end));
    (async () => { for (let round = 0; round < 5; round++) console.log(await once()); })();`;
  t.deepEqual(run(program), [0, null, '0\n0\n0\n0\n0', '']);
});
