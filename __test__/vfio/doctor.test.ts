/**
 * The doctor compared with real devices. A usable device opens with the back end that the doctor names, and a blocked
 * one fails with the error that it names. Its statements about BARs match those of the open device.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { basename, extname } from 'node:path';
import type { ExecutionContext } from 'ava';
import {
  AddressRange,
  type DeviceMemory,
  GuestMemory,
  PeerDmaError,
  VfioContainerManager,
  type VfioRegion,
} from '../../ts/index.ts';
import { type Diagnosis, diagnose } from '../../ts/host.ts';
import { testWith } from './support/devices.ts';
import { findings } from './support/findings.ts';
import type { Outcome } from './programs/doctor-and-open.ts';
import type { Attempt } from './support/attempt.ts';
import { openVfioFiles } from './support/open-files.ts';

const ADDRESS = 0x1_0000_0000n;

/** Whether a BAR can be mapped in the IOMMU of its own device. */
async function isMapped(memory: GuestMemory, bar: VfioRegion | undefined): Promise<boolean> {
  if (bar === undefined || bar.mmapAreas.length === 0) return false;
  let window: DeviceMemory | undefined;
  try {
    window = memory.newDeviceMemory({ name: 'bar', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(ADDRESS);
    const [target] = memory.inspect().targets;
    return target?.mappings.some(({ region, state }) => region === 'bar' && state === 'mapped') === true;
  } catch (error) {
    if (error instanceof PeerDmaError && error.code === 'ERR_UNALIGNED') return false; // it has no whole page
    throw error;
  } finally {
    await window?.remove();
  }
}

testWith({ any: 1 }, 'a usable device opens, and is as the doctor described it', async (t, { any }) => {
  const diagnosis = await diagnose({ devices: any });
  t.deepEqual(
    diagnosis.machine.filter(({ state }) => state === 'blocked'),
    [],
  );
  let opened = 0;
  for (const { address, state } of diagnosis.devices.filter((each) => each.state !== 'blocked')) {
    t.not(state, 'unknown');
    await using memory = await GuestMemory.create();
    await using manager = new VfioContainerManager(memory);
    const device = await manager.open(address);
    opened++;
    const { backend, reason } = manager.inspect();
    const [told] = findings(diagnosis, 'backend', address);
    t.is(told?.text, `opened by ${backend}`);
    t.true(told?.evidence.startsWith(reason), `${reason} / ${told?.evidence}`);
    for (const { bar, text } of findings(diagnosis, 'bar', address)) {
      const region = device.regions[bar?.index ?? NaN];
      t.is(region?.length, bar?.length, text);
      const mapped = await isMapped(memory, region);
      t.is(bar?.mappable, mapped, text);
      t.is(bar?.exportable, backend === 'iommufd' && mapped, text);
      if (mapped) t.is((region?.hostAddress ?? 1n) % (bar?.pageSize ?? 0n), 0n, text);
    }
  }
  t.true(opened > 0);
});

testWith({ any: 1 }, 'facts derived about a device match those of the open device', async (t, { any }) => {
  const [derived, asked] = [await diagnose({ devices: any }), await diagnose({ devices: any, open: true })];
  t.deepEqual(openVfioFiles(), [], 'nothing is left open');
  const plain = ({ devices }: Diagnosis): unknown =>
    devices.map(({ state, findings: found }) => [state, found.map((finding) => ({ ...finding, evidence: '' }))]);
  t.deepEqual(plain(asked), plain(derived));
  const opened = asked.devices.filter(({ state }) => state !== 'blocked');
  for (const { address } of opened) t.regex(findings(asked, 'backend', address)[0]?.evidence ?? '', /^it was opened: /);
});

/** Diagnoses and opens the device several times in a child process that `wrapper` starts. */
function inChild(
  t: ExecutionContext,
  wrapper: readonly string[],
  bdf: string,
  attempts: readonly Attempt[],
): readonly Outcome[] {
  const script = new URL(`programs/doctor-and-open${extname(import.meta.url)}`, import.meta.url).pathname;
  const command = [...wrapper, process.execPath, ...process.execArgv, script, bdf, JSON.stringify(attempts)];
  const [program = '', ...args] = command;
  const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  t.is(status, 0, stderr);
  const outcomes = JSON.parse(stdout) as Outcome[];
  t.is(outcomes.length, attempts.length);
  return outcomes;
}

/** The finding matches the result of opening. */
function agrees(t: ExecutionContext, { told, opened }: Outcome, what: string): void {
  if ('code' in opened) {
    t.is(told.blocked[0], opened.code, what);
  } else {
    t.deepEqual(told.blocked, [], what);
    t.is(told.backend?.text, `opened by ${opened.backend}`, what);
  }
}

testWith({ any: 1 }, 'a finding about files without permission names the user', async (t, { any: [bdf = ''] }) => {
  const group = `/dev/vfio/${basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`))}`;
  const container = '/dev/vfio/vfio';
  const own = readFolder(`/sys/bus/pci/devices/${bdf}/vfio-dev`).map((name) => `/dev/vfio/devices/${name}`);
  const iommufd = readFolder('/dev').filter((name) => name === 'iommu');
  const both = iommufd.length > 0;
  const deny = [
    'setpriv',
    '--bounding-set=-dac_override,-dac_read_search',
    '--inh-caps=-dac_override,-dac_read_search',
  ];
  const ofType1 = [group, container];
  const ofIommufd = both ? [...own, '/dev/iommu'] : [];
  const hidden = [...ofType1, ...ofIommufd].map((path) => [path]);
  if (both) hidden.push([group, ...own]);
  const attempts = hidden.map((files) => ({ mebibytes: 4, files }));
  const outcomes = new Map(inChild(t, deny, bdf, attempts).map((outcome, n) => [String(hidden[n]), outcome]));
  for (const [files, outcome] of outcomes) agrees(t, outcome, files);

  for (const path of ofType1) {
    const outcome = outcomes.get(path);
    t.is('code' in (outcome?.opened ?? {}), !both, `${path} is for type1 alone`);
    if (!both) t.true(outcome?.told.fixes[0]?.endsWith(` ${path}`), outcome?.told.fixes[0]);
  }
  for (const path of ofIommufd) {
    const outcome = outcomes.get(path);
    t.like(outcome?.opened, { backend: 'type1' }, path);
    t.true(outcome?.told.backend?.evidence.includes(path));
  }
  if (both) t.like(outcomes.get(String([group, ...own]))?.opened, { code: 'ERR_PERMISSION' });
});

testWith(
  { any: 1 },
  'RAM beyond the limit of locked memory is blocked, and opening fails',
  async (t, { any: [bdf = ''] }) => {
    const limited = ['setpriv', '--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock', 'prlimit', `--memlock=${8 << 20}`];
    const [fits, exceeds] = inChild(t, limited, bdf, [{ mebibytes: 4 }, { mebibytes: 16 }]);
    if (fits === undefined || exceeds === undefined) throw new Error('two results');
    agrees(t, fits, '4 MiB');
    t.false('code' in fits.opened);
    agrees(t, exceeds, '16 MiB');
    t.like(exceeds.opened, { code: 'ERR_MEMLOCK_LIMIT' });
    t.is(exceeds.told.fixes[0], `sudo prlimit --pid $$ --memlock=${16 << 20}:${16 << 20}`);
  },
);

function readFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
