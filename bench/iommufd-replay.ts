/**
 * Replay into an address space of iommufd, by file and by host address. Runs in the testbed, which has VFIO devices
 * and iommufd: `iommufd-replay.ts BDF PROGRAM`; prints figures as JSON.
 */
import { NativeIommufd, NativeVfioDevice } from '#native';
import { readdirSync } from 'node:fs';
import { IommufdTarget } from '../ts/vfio/iommufd/iommufd-target.ts';
import { replaysAgainstC } from './replay-against-c.ts';
import type { Replays } from './replay.ts';
import { type Join, joinWithPort } from './targets.ts';

const [bdf = '', program = ''] = process.argv.slice(2);
const [device = ''] = readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`);

/** @param byFile whether the target maps files, as on recent kernels; otherwise it maps host addresses */
async function ours(byFile: boolean, run: (join: Join) => Promise<Replays>): Promise<Replays> {
  const iommufd = NativeIommufd.open();
  const ioas = iommufd.newIoas();
  const handle = await NativeVfioDevice.openByFileAsync(bdf, Number(device.replace('vfio', '')), iommufd);
  await handle.attach(ioas);
  try {
    return await run(joinWithPort(new IommufdTarget(ioas, 'bench', byFile)));
  } finally {
    handle.close();
    ioas.close();
    iommufd.close();
  }
}

const path = `/dev/vfio/devices/${device}`;
const byFile = await replaysAgainstC('iommufd by file', (run) => ours(true, run), [program, path, 'file']);
const byAddress = await replaysAgainstC('iommufd by host address', (run) => ours(false, run), [
  program,
  path,
  'memory',
]);
console.log(JSON.stringify([...byFile, ...byAddress]));
