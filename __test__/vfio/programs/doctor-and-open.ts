/**
 * A process that diagnoses a device, opens it, and reports both results. It prints a line of JSON: `doctor-and-open.ts
 * BDF MEBIBYTES [FILE…]`. Meanwhile the FILEs cannot be opened.
 */
import { chmodSync, statSync } from 'node:fs';
import { GuestMemory, PeerDmaError, VfioContainerManager } from '../../../ts/index.ts';
import { type DoctorFinding, diagnose } from '../../../ts/host.ts';

export interface Verdict {
  /** Codes of the blocked findings, of the machine and then of the device. */
  readonly blocked: (string | undefined)[];
  readonly fixes: (string | undefined)[];
  readonly backend: Pick<DoctorFinding, 'state' | 'text' | 'evidence'> | undefined;
}

/** The code of the error, or the back end with its reason. */
export type Opened = { readonly code: string } | { readonly backend: string | undefined; readonly reason: string };

const [bdf = '', mebibytes = '4', ...files] = process.argv.slice(2);
const ram = BigInt(mebibytes) << 20n;
const modes = files.map((path) => ({ path, mode: statSync(path).mode }));
for (const { path } of modes) chmodSync(path, 0);
try {
  console.log(JSON.stringify({ told: await told(), opened: await open() }));
} finally {
  for (const { path, mode } of modes) chmodSync(path, mode);
}

async function told(): Promise<Verdict> {
  const { machine, devices } = await diagnose({ devices: [bdf], ram });
  const findings = [...machine, ...devices.flatMap((device) => device.findings)];
  const blocked = findings.filter(({ state }) => state === 'blocked');
  const backend = findings.find(({ id }) => id === 'backend');
  return { blocked: blocked.map(({ code }) => code), fixes: blocked.map(({ fix }) => fix), backend };
}

async function open(): Promise<Opened> {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: ram }] });
  await using manager = new VfioContainerManager(memory);
  try {
    await manager.open(bdf);
    const { backend, reason } = manager.inspect();
    return { backend, reason };
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    return { code: error.code };
  }
}
