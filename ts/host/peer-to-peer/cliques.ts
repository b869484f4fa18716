/** Groups devices into cliques: all devices of one reach each other, in both directions. */
import { readArray, readOptions, readable } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { valueText } from '../../value-text.ts';
import type { MatrixParts, PeerMatrix, PeerVerdict } from './model.ts';

/** The most cliques: a number of one has 4 bits in the capability of NVIDIA. */
const MAX_CLIQUES = 16;

/** Devices that reach each other, in both directions. */
export interface PeerClique {
  /** 0 to 15. */
  readonly number: number;
  /** Addresses, two or more, in the order of the matrix. */
  readonly devices: readonly string[];
}

/** A device that belongs to no clique. */
export interface DeviceWithoutClique {
  /** Its address. */
  readonly device: string;
  /** A text for people. */
  readonly reason: string;
}

/** Result of {@link peerCliques}. */
export interface PeerCliques {
  /** At most 16. Each device is in one at most. */
  readonly cliques: readonly PeerClique[];
  /** The other devices. */
  readonly without: readonly DeviceWithoutClique[];
}

/** Options of {@link peerCliques}. */
export interface PeerCliqueOptions {
  /**
   * Verdicts that count as reachable. Add `unknown` for a machine on which a test has shown that its root complex
   * forwards. Default: `yes` and `host-bridge`
   */
  readonly accept?: readonly PeerVerdict[];
}

const VERDICTS: readonly PeerVerdict[] = ['yes', 'host-bridge', 'no', 'unknown'];
const DEFAULT: readonly PeerVerdict[] = ['yes', 'host-bridge'];

/**
 * Proposes cliques: groups of devices whose pairs reach each other in both directions.
 *
 * Each device joins the first group whose devices it all reaches, in the order of the matrix. A group of one device is
 * not a clique. The verdicts describe the hardware, and {@link PeerCell.prerequisites} remain to be met.
 *
 * @param matrix result of {@link peerMatrix}
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 */
export function peerCliques(matrix: PeerMatrix, options: PeerCliqueOptions = {}): PeerCliques {
  const accept = readArray(readOptions(options, ['accept']).accept ?? DEFAULT, 'accepted verdicts');
  for (const verdict of accept) {
    if (VERDICTS.includes(verdict)) continue;
    const reason = `a verdict is one of ${VERDICTS.join(', ')}, not ${valueText(verdict)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `cliques: proposing them failed: ${reason}. Accept one of these.`);
  }
  const given = readOptions(matrix, ['devices', 'cells'], 'a matrix');
  const devices = readArray(given.devices, 'the devices of a matrix');
  const cells = readArray(given.cells, 'the cells of a matrix');
  return readable('the matrix', () => cliquesOf({ devices, cells }, accept));
}

/** Proposes cliques, reading each cell once. @internal */
export function cliquesOf(
  { devices, cells }: Pick<MatrixParts, 'devices' | 'cells'>,
  accepted: readonly PeerVerdict[] = DEFAULT,
): PeerCliques {
  const accept = new Set(accepted);
  const reached = new Map<string, Set<string>>();
  const problems = new Map<string, string>(); // of each device, the first one
  for (const { initiator, target, verdict, reasons } of cells) {
    if (accept.has(verdict)) {
      const targets = reached.get(initiator);
      if (targets === undefined) reached.set(initiator, new Set([target]));
      else targets.add(target);
      continue;
    }
    const reason = reasons.at(-1)?.text ?? 'no reason is recorded';
    const problem = `${initiator} to ${target} has the verdict ${verdict}: ${reason}`;
    for (const device of [initiator, target]) if (!problems.has(device)) problems.set(device, problem);
  }
  const reaches = (initiator: string, target: string): boolean => reached.get(initiator)?.has(target) === true;
  const reachEachOther = (a: string, b: string): boolean => reaches(a, b) && reaches(b, a);
  const reasonOf = (device: string): string => {
    const problem = problems.get(device);
    if (problem !== undefined) return problem;
    // All cells of the device are accepted, so those of another one that it does not reach are missing.
    const other = devices.find((each) => each !== device && !reachEachOther(each, device));
    if (other === undefined) return 'the matrix has no other device';
    const [initiator, target] = reaches(device, other) ? [other, device] : [device, other];
    return `the matrix has no cell of ${initiator} to ${target}`;
  };
  const groups: string[][] = [];
  for (const device of devices) {
    const group = groups.find((members) => members.every((member) => reachEachOther(member, device)));
    if (group === undefined) groups.push([device]);
    else group.push(device);
  }
  const several = groups.filter(({ length }) => length > 1);
  const numbered = new Set(several.slice(0, MAX_CLIQUES));
  const without = groups
    .filter((group) => !numbered.has(group))
    .flatMap((group) =>
      group.map((device) => ({
        device,
        reason: group.length > 1 ? `all ${MAX_CLIQUES} clique numbers are in use` : reasonOf(device),
      })),
    );
  return { cliques: [...numbered].map((members, number) => ({ number, devices: members })), without };
}
