/**
 * A process without CAP_IPC_LOCK that reaches RLIMIT_MEMLOCK. It does so during a replay and during a change, and
 * reports in a line of JSON: `at-the-memlock-limit.ts EDU EDU`.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { Edu } from '../../../examples/devices/edu.ts';
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError } from '../../../ts/index.ts';
import type { MemlockReport } from '../support/memlock-report.ts';
import { RAM_START } from '../support/rig.ts';
import { reaches, completeState } from '../support/two-containers.ts';
import { newManager } from '../support/backend.ts';

const MiB = 1n << 20n;
const ADDED = 0x4000_0000n;

/** Sets the soft limit of this process; the hard limit stays, so that it can be raised again. */
function limit(mebibytes: bigint): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--memlock=${mebibytes * MiB}:`]);
}

function locked(): number {
  return Number(/^VmLck:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? NaN) * 1024;
}

async function refusal(attempt: () => Promise<unknown>): Promise<{ code: string; errno: string | undefined }> {
  try {
    await attempt();
  } catch (error) {
    if (error instanceof PeerDmaError) return { code: error.code, errno: error.errno };
    throw error;
  }
  return { code: 'OK', errno: undefined };
}

execFileSync('prlimit', ['--pid', String(process.pid), `--memlock=${64n * MiB}`]);
const [first = '', second = ''] = process.argv.slice(2);
await using memory = await GuestMemory.create({
  ram: [
    { start: RAM_START, length: 4n * MiB },
    { start: RAM_START + 16n * MiB, length: 4n * MiB },
  ],
});
await using one = newManager(memory);
await using two = newManager(memory);
const edus = [new Edu(await one.open(first))];
const stand = (): Promise<object> => completeState(memory, one, two);
const alone = { locked: locked() };

limit(14n); // 8 are locked, 4 more fit, 8 do not
let before = await stand();
const replayed = await refusal(() => two.open(second));
const replay = {
  ...replayed,
  locked: locked(),
  asBefore: isDeepStrictEqual(await stand(), before),
  half: locked() + Number(4n * MiB) <= Number(14n * MiB),
};

limit(22n);
edus.push(new Edu(await two.open(second)));
const both = { locked: locked() };

using file = MemoryFile.create(4n * MiB, { name: 'added' });
const region = await memory.regions.addRegion({ name: 'added', range: AddressRange.of(ADDED, 4n * MiB) });
await region.addMapping({ range: AddressRange.of(0n, 4n * MiB), backing: { file, offset: 0n } });
const reached = async (): Promise<boolean[]> => {
  const found: boolean[] = [];
  for (const edu of edus) found.push(await reaches(memory, edu, ADDED + 3n * MiB, file, 3n * MiB));
  return found;
};
before = await stand();
const changed = await refusal(() => region.mapToGuest()); // 16 are locked, 4 of the first container fit, 4 more do not
const change = {
  ...changed,
  locked: locked(),
  asBefore: isDeepStrictEqual(await stand(), before),
  reached: await reached(),
};

limit(24n);
await region.mapToGuest();
const after = { locked: locked(), reached: await reached() };
const report: MemlockReport = { alone, replay, both, change, after };
console.log(JSON.stringify(report));
await region.remove();
