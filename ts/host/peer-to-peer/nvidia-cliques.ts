/** Cliques of the GPUs of NVIDIA in a machine. */
import { readOptions } from '../../arguments.ts';
import { evaluateHost } from '../host-argument.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import { type PeerCliqueOptions, type PeerCliques, peerCliques } from './cliques.ts';
import { peerMatrix } from './matrix.ts';

const NVIDIA = 0x10de;
/** VGA and 3D controllers: base class and subclass (PCI Code and ID Assignment Specification). */
const GPU_CLASSES: readonly number[] = [0x0300, 0x0302];

/** Options of {@link nvidiaCliques}. */
export interface NvidiaCliqueOptions extends PeerCliqueOptions {
  /** Addresses of the GPUs that a guest gets; other devices among them are left out. Default: all of the machine */
  readonly devices?: readonly string[];
}

/**
 * Proposes the clique numbers for `nvidiaP2pClique` of GPUs of NVIDIA, as {@link peerCliques} does.
 *
 * GPUs are VGA and 3D controllers of vendor 0x10de. A number has a meaning within one guest only.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 */
export function nvidiaCliques(host: HostMachine, options: NvidiaCliqueOptions = {}): PeerCliques {
  const { devices, ...others } = readOptions(options, ['devices', 'accept']);
  const gpus = evaluateHost(host, ({ functions }) =>
    [...(devices === undefined ? functions.keys() : new Set(devices))].filter((address) => {
      const found = functions.get(address);
      return found !== undefined && isGpu(found);
    }),
  );
  return peerCliques(peerMatrix(host, gpus), others);
}

function isGpu({ ids, classCode }: PciFunction): boolean {
  return ids.vendor === NVIDIA && classCode !== 'unknown' && GPU_CLASSES.includes(classCode >> 8);
}
