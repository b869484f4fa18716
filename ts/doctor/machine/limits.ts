/**
 * Limits of this process against the RAM that a guest is to have: locked memory, and how many mappings it can be in.
 */
import { sizeOf } from '../../size.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

/** Of the mappings that the kernel allows, the native core leaves a quarter to everybody else (crates/core/src/memory/budget.rs). */
const usable = (mappings: number): number => mappings - Math.floor(mappings / 4);
/** Mappings that a piece of memory takes that does not adjoin the next. */
const MAPPINGS_EACH = 2;
/** A guest takes memory in and out in blocks; Linux on x86-64 in such ones, or in larger ones (Linux, arch/x86/mm/init_64.c). */
const MEMORY_BLOCK = 128n << 20n;
/** With fewer not even a small guest's RAM and BARs find room. */
const FEWEST_PIECES = 256;

/** @internal */
export function memlockFinding({ system: { limits }, ram }: Facts): Finding {
  const id = 'memlock';
  const { memlock, ipcLock } = limits;
  if (memlock === 'unknown') {
    return { id, state: 'unknown', says: 'how much memory can be locked does not show here', evidence: 'no /proc' };
  }
  if (ipcLock === true) {
    const says = 'this process may lock any amount of memory; a VMM of another user has the limit of that user';
    return { id, state: 'ok', says, evidence: '/proc/self/status: CapEff has CAP_IPC_LOCK' };
  }
  const evidence = `/proc/self/limits: Max locked memory ${memlock}`;
  if (memlock === 'unlimited') return { id, state: 'ok', says: 'any amount of memory can be locked', evidence };
  const most = `up to ${sizeOf(memlock)} of memory can be locked`;
  if (ram === undefined) {
    const says = `${most}, and so much RAM can a guest have that has a device: --ram SIZE says whether a size fits`;
    return { id, state: 'warning', says, evidence };
  }
  if (ram <= memlock) {
    const says = `${most}, which ${sizeOf(ram)} of RAM fit in once: type1 counts it for each container`;
    return { id, state: 'ok', says, evidence };
  }
  return {
    id,
    state: 'blocked',
    says: `${most}, and all RAM of a guest is, ${sizeOf(ram)}: raise RLIMIT_MEMLOCK (this shell's is raised so; LimitMEMLOCK= in systemd, /etc/security/limits.d for logins)`,
    evidence,
    fix: `sudo prlimit --pid $$ --memlock=${ram}:${ram}`,
    code: 'ERR_MEMLOCK_LIMIT',
  };
}

/** @internal */
export function mappingsFinding({ system, ram }: Facts): Finding {
  const id = 'mappings';
  const { mappings, mapped } = system.limits;
  if (mappings === 'unknown') {
    const says = 'how many memory mappings a process may have does not show here';
    return { id, state: 'unknown', says, evidence: 'no /proc/sys/vm/max_map_count' };
  }
  const used = mapped === 'unknown' ? 0 : mapped;
  const pieces = Math.max(0, Math.floor((usable(mappings) - used) / MAPPINGS_EACH));
  const entries = system.dmaEntries === 'unknown' ? pieces : Math.min(pieces, system.dmaEntries);
  const evidence = [
    `vm.max_map_count is ${mappings}`,
    ...(mapped === 'unknown' ? [] : [`/proc/self/maps has ${mapped} lines`]),
    ...(system.dmaEntries === 'unknown' ? [] : [`vfio_iommu_type1.dma_entry_limit is ${system.dmaEntries}`]),
  ].join('; ');
  const wanted = ram === undefined ? 0 : Number((ram + MEMORY_BLOCK - 1n) / MEMORY_BLOCK);
  const room = `guest memory can be in ${entries} pieces that don't adjoin`;
  if (entries >= Math.max(wanted, FEWEST_PIECES)) {
    const says = ram === undefined ? room : `${room}: ${sizeOf(ram)} of RAM in pieces of ${pieceOf(ram, entries)}`;
    return { id, state: 'ok', says, evidence };
  }
  const narrow = `${room}, fewer than the ${Math.max(wanted, FEWEST_PIECES)} blocks of 128 MiB in which RAM may come and go`;
  const raised = Math.ceil(((Math.max(wanted, FEWEST_PIECES) * MAPPINGS_EACH + used) * 4) / 3) + 4;
  const byEntries = system.dmaEntries !== 'unknown' && system.dmaEntries < pieces;
  return {
    id,
    state: entries < FEWEST_PIECES ? 'blocked' : 'warning',
    says: narrow,
    evidence,
    fix: byEntries
      ? `echo ${Math.max(wanted, FEWEST_PIECES)} | sudo tee /sys/module/vfio_iommu_type1/parameters/dma_entry_limit`
      : `sudo sysctl vm.max_map_count=${raised}`,
    code: entries < FEWEST_PIECES ? 'ERR_MAPPING_LIMIT' : undefined,
  };
}

/** The smallest, in whole pages. */
function pieceOf(ram: bigint, pieces: number): string {
  const page = 4096n;
  const smallest = (ram + BigInt(pieces) - 1n) / BigInt(pieces);
  return `${sizeOf(((smallest + page - 1n) / page) * page)} or more`;
}
