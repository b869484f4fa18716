/**
 * Reports whether limits of this process suffice for a guest's RAM: locked memory and memory mappings.
 */
import { PAGE } from '../../host/peer-to-peer/target-bars.ts';
import { sizeOf } from '../../size.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/** Memory mappings for each separate piece of guest memory. */
const MAPPINGS_EACH = 2;
/** Smallest block in which a Linux guest on x86-64 adds and removes memory (arch/x86/mm/init_64.c). */
const MEMORY_BLOCK = 128n << 20n;
/** Fewest pieces for RAM and BARs of a small guest. */
const MIN_PIECES = 256;

/** @internal */
export function memlockFinding({ system: { limits, inUserNamespace }, ram }: Facts): DoctorFinding {
  const id = 'memlock';
  const { memlock, ipcLock } = limits;
  if (memlock === 'unknown') {
    return { id, state: 'unknown', text: 'how much memory can be locked is unknown here', evidence: 'no /proc' };
  }
  if (ipcLock === true) {
    const text = 'this process can lock any amount of memory; a VMM of another user has the limit of that user';
    return { id, state: 'ok', text, evidence: '/proc/self/status: CapEff has CAP_IPC_LOCK' };
  }
  const evidence = `/proc/self/limits: Max locked memory ${memlock}`;
  if (memlock === 'unlimited') return { id, state: 'ok', text: 'any amount of memory can be locked', evidence };
  const namespace = inUserNamespace === true ? ' (CAP_IPC_LOCK of a user namespace does not lift the limit)' : '';
  const most = `up to ${sizeOf(memlock)} of memory can be locked${namespace}`;
  if (ram === undefined) {
    const text = `${most}, which is the most RAM of a guest with a device. Pass --ram SIZE to check a size`;
    return { id, state: 'warning', text, evidence };
  }
  if (ram <= memlock) {
    const text = `${most}; ${sizeOf(ram)} of RAM fit once, and type1 counts them for each container`;
    return { id, state: 'ok', text, evidence };
  }
  if (inUserNamespace === true) {
    const text =
      `${most}, but a guest locks all its RAM, ${sizeOf(ram)}. ` +
      `Start the container with a higher limit (--ulimit memlock=${ram})`;
    return { id, state: 'blocked', text, evidence: `${evidence}; /proc/self/uid_map`, code: 'ERR_MEMLOCK_LIMIT' };
  }
  return {
    id,
    state: 'blocked',
    text:
      `${most}, but a guest locks all its RAM, ${sizeOf(ram)}. Raise RLIMIT_MEMLOCK (prlimit for this shell, ` +
      'LimitMEMLOCK= for systemd, /etc/security/limits.d for logins)',
    evidence,
    fix: `sudo prlimit --pid $$ --memlock=${ram}:${ram}`,
    code: 'ERR_MEMLOCK_LIMIT',
  };
}

/** @internal */
export function mappingsFinding({ system: { limits, dmaEntries }, ram }: Facts): DoctorFinding {
  const id = 'mappings';
  const { mappings } = limits;
  if (mappings === 'unknown') {
    const text = 'how many memory mappings a process can have is unknown here';
    return { id, state: 'unknown', text, evidence: 'no /proc/sys/vm/max_map_count' };
  }
  const used = limits.mapped === 'unknown' ? 0 : limits.mapped;
  const inProcess = Math.max(0, Math.floor((usable(mappings) - used) / MAPPINGS_EACH));
  const pieces = dmaEntries === 'unknown' ? inProcess : Math.min(inProcess, dmaEntries);
  const wanted = Math.max(MIN_PIECES, ram === undefined ? 0 : Number(rounded(ram, MEMORY_BLOCK) / MEMORY_BLOCK));
  const evidence = [
    `vm.max_map_count is ${mappings}`,
    `/proc/self/maps has ${limits.mapped} lines`,
    `vfio_iommu_type1.dma_entry_limit is ${dmaEntries}`,
  ].join('; ');
  const capacity = `guest memory can have ${pieces} separate pieces`;
  if (pieces >= wanted) {
    const smallest = (ram ?? 0n) / BigInt(pieces) + 1n;
    const text =
      ram === undefined
        ? capacity
        : `${capacity}: ${sizeOf(ram)} of RAM in pieces of ${sizeOf(rounded(smallest, PAGE))}`;
    return { id, state: 'ok', text, evidence };
  }
  const text = `${capacity}, fewer than the ${wanted} blocks of 128 MiB in which RAM can be added and removed`;
  const fix =
    pieces < inProcess
      ? `echo ${wanted} | sudo tee /sys/module/vfio_iommu_type1/parameters/dma_entry_limit`
      : `sudo sysctl vm.max_map_count=${allowing(wanted * MAPPINGS_EACH + used)}`;
  if (pieces >= MIN_PIECES) return { id, state: 'warning', text, evidence, fix };
  return { id, state: 'blocked', text, evidence, fix, code: 'ERR_MAPPING_LIMIT' };
}

function rounded(bytes: bigint, unit: bigint): bigint {
  return ((bytes + unit - 1n) / unit) * unit;
}

/** The native core reserves a quarter of the limit for other code (crates/core/src/memory/budget.rs). */
function usable(mappings: number): number {
  return mappings - Math.floor(mappings / 4);
}

/** The limit with which a number of mappings is usable. */
function allowing(mappings: number): number {
  return Math.ceil((mappings * 4) / 3);
}
