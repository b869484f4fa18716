/**
 * Replay into an address space of iommufd, by file and by host address, against a C program that issues the same ioctls in a
 * loop. Runs where VFIO devices and iommufd are, which is in the testbed: `iommufd-replay.ts BDF PROGRAM`; prints Figures as
 * JSON.
 */
import { NativeIommufd, NativeVfioDevice } from '#native';
import { readdirSync } from 'node:fs';
import { joinPort } from '../ts/guest/dma-mapper-client.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import { IommufdTarget } from '../ts/vfio/iommufd/iommufd-target.ts';
import { nanoseconds } from './compile.ts';
import { type Figure, againstC } from './measure.ts';
import { MAPPINGS, replay } from './replay.ts';

const ROUNDS = 6;

const [bdf = '', program = ''] = process.argv.slice(2);
const [device = ''] = readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`);

/** @param byFile as targets take files where the kernel can map them; if not, by their place in this process */
async function ours(byFile: boolean): Promise<number[]> {
  const iommufd = NativeIommufd.open();
  const ioas = iommufd.newIoas();
  const handle = NativeVfioDevice.openByFile(bdf, Number(device.replace('vfio', '')), iommufd);
  await handle.attach(ioas);
  try {
    const port = new IommufdTarget(ioas, 'bench', byFile);
    return await replay((memory) => joinPort(addressSpaceOf(memory), port, 'best-effort'), ROUNDS);
  } finally {
    handle.close();
    ioas.close();
    iommufd.close();
  }
}

function theirs(how: 'file' | 'memory'): number[] {
  return nanoseconds(program, `/dev/vfio/devices/${device}`, how, String(MAPPINGS), String(ROUNDS)).slice(1);
}

const what = `replay of ${MAPPINGS} sub-mappings into iommufd in the testbed`;
const figures: Figure[] = [
  await againstC(
    `${what} by file, against C`,
    MAPPINGS,
    () => ours(true),
    () => theirs('file'),
  ),
  await againstC(
    `${what} by host address, against C`,
    MAPPINGS,
    () => ours(false),
    () => theirs('memory'),
  ),
];
console.log(JSON.stringify(figures));
