/**
 * A process that opens a device for a guest with RAM. It reports the result in a line of JSON, and ends: `try-open.ts
 * BDF MEBIBYTES`.
 */
import { openVfioFiles } from '../support/open-files.ts';
import { GuestMemory, PeerDmaError } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';

const [bdf = '', mebibytes = '4'] = process.argv.slice(2);
await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: BigInt(mebibytes) << 20n }] });
await using manager = newManager(memory);
try {
  await manager.open(bdf);
  report({ code: 'OK' });
} catch (error) {
  if (!(error instanceof PeerDmaError)) throw error;
  const { code, errno, message, bdf, range } = error;
  report({ code, errno, message, bdf, range: range?.toString() });
}

function report(outcome: Record<string, unknown>): void {
  const left = {
    containers: manager.inspect().containers.length,
    targets: memory.inspect().targets.length,
    files: openVfioFiles(),
  };
  console.log(JSON.stringify({ ...outcome, ...left }));
}
