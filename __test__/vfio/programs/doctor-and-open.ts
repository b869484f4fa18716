/**
 * A process that diagnoses a device and opens it, once for each attempt. It reports the results in a line of JSON:
 * `doctor-and-open.ts BDF ATTEMPTS`, a list of attempts in JSON.
 */
import { GuestMemory, PeerDmaError, VfioContainerManager } from '../../../ts/index.ts';
import { type DoctorFinding, diagnose } from '../../../ts/host.ts';
import { type Attempt, withoutFiles } from '../support/attempt.ts';

export interface Verdict {
  /** Codes of the blocked findings, of the machine and then of the device. */
  readonly blocked: (string | undefined)[];
  readonly fixes: (string | undefined)[];
  readonly backend: Pick<DoctorFinding, 'state' | 'text' | 'evidence'> | undefined;
}

/** The code of the error, or the back end with its reason. */
export type Opened = { readonly code: string } | { readonly backend: string | undefined; readonly reason: string };

export interface Outcome {
  readonly told: Verdict;
  readonly opened: Opened;
}

const [bdf = '', attempts = '[]'] = process.argv.slice(2);
const outcomes: Outcome[] = [];
for (const { mebibytes, files = [] } of JSON.parse(attempts) as Attempt[]) {
  const ram = BigInt(mebibytes) << 20n;
  outcomes.push(await withoutFiles(files, async () => ({ told: await told(ram), opened: await open(ram) })));
}
console.log(JSON.stringify(outcomes));

async function told(ram: bigint): Promise<Verdict> {
  const { machine, devices } = await diagnose({ devices: [bdf], ram });
  const findings = [...machine, ...devices.flatMap((device) => device.findings)];
  const blocked = findings.filter(({ state }) => state === 'blocked');
  const backend = findings.find(({ id }) => id === 'backend');
  return { blocked: blocked.map(({ code }) => code), fixes: blocked.map(({ fix }) => fix), backend };
}

async function open(ram: bigint): Promise<Opened> {
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
