/**
 * A process that opens a device for a guest with RAM, once for each attempt. It reports the results in a line of JSON,
 * and ends: `try-open.ts BDF ATTEMPTS`, a list of attempts in JSON.
 */
import { type Attempt, withoutFiles } from '../support/attempt.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { GuestMemory, PeerDmaError } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';

const [bdf = '', attempts = '[]'] = process.argv.slice(2);
const outcomes: object[] = [];
for (const { mebibytes, files = [] } of JSON.parse(attempts) as Attempt[]) {
  outcomes.push(await withoutFiles(files, async () => tryOpen(mebibytes)));
}
console.log(JSON.stringify(outcomes));

async function tryOpen(mebibytes: number): Promise<object> {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: BigInt(mebibytes) << 20n }] });
  await using manager = newManager(memory);
  let outcome: object = { code: 'OK' };
  try {
    await manager.open(bdf);
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    const { code, errno, message, range } = error;
    outcome = { code, errno, message, bdf: error.bdf, range: range?.toString() };
  }
  const { length: containers } = manager.inspect().containers;
  return { ...outcome, containers, targets: memory.inspect().targets.length, files: openVfioFiles() };
}
