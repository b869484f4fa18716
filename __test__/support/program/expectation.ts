/**
 * The expected outcome of an operation, given the model, the quarantine and the faults.
 */
import type { PeerToPeer } from '../../../ts/index.ts';
import { type MemoryModel, type ModelCell, type ModelFlat, PRIVATE, sameCell } from '../memory-model.ts';
import { usesHostMemory } from '../recording-target.ts';
import type { CastMember, CastName } from './cast.ts';
import { isInDomain } from './domains.ts';
import { Remove } from './changes.ts';
import type { Hit } from './faults.ts';
import { Change, type Operation, type Pages, SIZE } from './operation.ts';
import { Register, TargetClosed, Unregister } from './registrations.ts';
import type { Member } from './world.ts';

/** A range that a target failed to unmap, and the memory that the target has there. */
export interface Quarantined extends Pages {
  readonly target: CastName;
  readonly cells: ModelFlat;
  /** Whether it may be other memory as well. */
  readonly vague: boolean;
}

/** The state in which an operation runs. */
export interface Situation {
  readonly model: MemoryModel;
  readonly members: ReadonlyMap<CastName, Member>;
  readonly cast: Readonly<Record<CastName, CastMember>>;
  readonly quarantine: readonly Quarantined[];
  /** The sub-mappings of the flat map. */
  readonly subs: readonly Pages[];
  /** Whether this process may still map memory that a rollback could not unmap. The next change retries it. */
  readonly stale: boolean;
}

/** The possible codes; `OK` is success. */
export interface Due {
  readonly codes: readonly string[];
  /** The target that the error names, if known. */
  readonly target?: string;
}

export function overlap(a: Pages, b: Pages): boolean {
  return a.at < b.at + b.count && b.at < a.at + a.count;
}

/**
 * Whether a quarantine keeps other memory there, so this process cannot map the flat map's memory.
 */
export function hasOtherMemory(kept: Quarantined, flat: ModelFlat, sub: Pages): boolean {
  if (!overlap(kept, sub)) return false;
  if (kept.vague || kept.at !== sub.at || kept.count !== sub.count) return true;
  return kept.cells.some((cell, n) => !sameCell(cell, flat[kept.at + n]));
}

/** Whether pages of the flat map's private memory, which can be in one place only, are kept elsewhere. */
export function sharesPrivateMemory({ cells }: Quarantined, flat: ModelFlat, { at, count }: Pages): boolean {
  return flat
    .slice(at, at + count)
    .some(
      (cell) =>
        cell !== undefined &&
        cell.store >= PRIVATE &&
        cells.some((kept) => kept?.store === cell.store && kept.page === cell.page),
    );
}

/** Whether a target is not called for memory of kind device. */
export function skipsDevice(name: CastName, { accepts }: CastMember, { policy }: Member, cell: ModelCell): boolean {
  if (policy === 'off' || !isInDomain(name, cell)) return true;
  return policy === 'best-effort' && accepts.backing === 'file' && cell.store >= PRIVATE;
}

/** Whether a change fails if the target cannot map the memory. */
function requires(name: CastName, policy: PeerToPeer | undefined, cell: ModelCell): boolean {
  return cell.kind === 'ram' || (policy === 'required' && isInDomain(name, cell));
}

/** Whether a failed map is a result, not an error. */
function isTolerated({ on, op, call }: Hit, members: ReadonlyMap<string, Member>): boolean {
  return op === 'map' && call?.request?.kind === 'device' && members.get(on)?.policy === 'best-effort';
}

/**
 * Whether a change continues after a failed native call. It does if the call was for device memory that every target
 * may skip. `undefined` if that depends on the flat map of the call.
 */
function isMissable(
  { on, op, pages }: Hit,
  flats: readonly ModelFlat[],
  concerned: readonly CastName[],
  { members, cast }: Pick<Situation, 'members' | 'cast'>,
): boolean | undefined {
  if (on !== 'native' || op === 'unmap') return false;
  const answers = new Set<boolean>();
  for (const flat of flats) {
    for (const { at, count } of pages) {
      for (const cell of flat.slice(at, at + count)) {
        if (cell === undefined) continue;
        const must = concerned
          .filter((name) => members.get(name)?.joined === true && usesHostMemory(cast[name], cell.store >= PRIVATE))
          .map((name) => requires(name, members.get(name)?.policy, cell));
        // Placing is for all targets together, the rest may be for one of them.
        if (op === 'mapFile' || op === 'mapPrivate') answers.add(!must.includes(true));
        else for (const one of must) answers.add(!one);
      }
    }
  }
  return answers.size === 1 ? answers.has(true) : undefined;
}

/** The expectation with the calls that certainly fail the change, and with those that may. */
function dueForEither(
  hits: readonly Hit[],
  missable: (hit: Hit) => boolean | undefined,
  due: (serious: readonly Hit[]) => Due,
): Due {
  const most = due(hits.filter((hit) => missable(hit) !== true));
  if (hits.every((hit) => missable(hit) !== undefined)) return most;
  return { codes: [...most.codes, ...due(hits.filter((hit) => missable(hit) === false)).codes] };
}

export function dueOf(operation: Operation, situation: Situation, hits: readonly Hit[]): Due {
  const swept = hits.filter(({ on, op }) => on === 'native' && op === 'unmap');
  if (!situation.stale || swept.length === 0) return dueOfFresh(operation, situation, hits);
  const without = dueOfFresh(
    operation,
    situation,
    hits.filter((hit) => !swept.includes(hit)),
  );
  return {
    codes: [...dueOfFresh(operation, situation, hits).codes, ...without.codes, 'ERR_OVERLAP', 'ERR_ROLLBACK_FAILED'],
  };
}

function dueOfFresh(operation: Operation, situation: Situation, hits: readonly Hit[]): Due {
  if (operation instanceof Change) return dueOfChange(operation, situation, hits);
  if (operation instanceof Register) return dueOfRegister(operation, situation, hits);
  if (operation instanceof Unregister) {
    const { target } = operation;
    if (!situation.members.has(target)) return { codes: ['OK'] };
    const stuck = hits.length > 0 || situation.quarantine.some((kept) => kept.target === target);
    return stuck ? { codes: ['ERR_UNMAP_FAILED'], target } : { codes: ['OK'] };
  }
  if (operation instanceof TargetClosed) {
    const [flats, concerned] = [[situation.model.flat(SIZE)], [...situation.members.keys()]];
    return dueForEither(
      hits,
      (hit) => isMissable(hit, flats, concerned, situation),
      (serious) => dueOfRepair(serious.filter((hit) => !isTolerated(hit, situation.members))),
    );
  }
  throw new Error(`no expectation for "${operation}"`);
}

function dueOfRepair(serious: readonly Hit[]): Due {
  return { codes: serious.length === 0 ? ['OK'] : [...serious.map(({ code }) => code), 'ERR_ROLLBACK_FAILED'] };
}

function dueOfChange(change: Change, situation: Situation, hits: readonly Hit[]): Due {
  const effect = change.effect(situation.model);
  if (effect === undefined) {
    return { codes: [change instanceof Remove ? 'OK' : 'ERR_REGION_REMOVED'] }; // remove() is idempotent
  }
  const { subs, quarantine, members, cast } = situation;
  const before = situation.model.flat(SIZE);
  const after = effect.next.flat(SIZE);
  const changed: Pages[] = [];
  for (let page = 0; page < SIZE; page++)
    if (!sameCell(before[page], after[page])) changed.push({ at: page, count: 1 });
  // A sub-mapping is removed as a whole.
  const cut = subs.filter((sub) => changed.some((page) => overlap(sub, page)));
  if (quarantine.some((kept) => [...changed, ...cut].some((pages) => overlap(kept, pages)))) {
    return { codes: ['ERR_RANGE_QUARANTINED'] };
  }
  const wide = [...effect.touched, ...subs.filter((sub) => effect.touched.some((pages) => overlap(sub, pages)))];
  const near = quarantine.some((kept) => wide.some((pages) => overlap(kept, pages)));
  const files = members.get('files');
  const needsFile =
    files?.joined === true &&
    cast.files.accepts.backing === 'file' &&
    changed.some(({ at }) => isUnmappablePrivatePage(after, at, files.policy === 'required'));
  // The pages of private memory can be in one place only.
  const taken = after.some(
    (cell) =>
      cell !== undefined &&
      cell.store >= PRIVATE &&
      quarantine.some(({ cells }) => cells.some((kept) => kept?.store === cell.store && kept.page === cell.page)),
  );
  const missable = (hit: Hit): boolean | undefined =>
    isMissable(hit, [before, after], [...members.keys()], { members, cast });
  return dueForEither(hits, missable, (serious) => dueWith(needsFile, near || taken, members, serious, hits));
}

function dueOfRegister({ target, policy }: Register, situation: Situation, hits: readonly Hit[]): Due {
  const { model, members, cast, quarantine, subs } = situation;
  const member = members.get(target);
  if (member !== undefined) return { codes: [member.joined ? 'ERR_INVALID_ARGUMENT' : 'ERR_RANGE_QUARANTINED'] };
  const flat = model.flat(SIZE);
  const blocks = (kept: Quarantined, sub: Pages): boolean => {
    const elsewhere =
      kept.at !== sub.at && usesHostMemory(cast[kept.target], true) && sharesPrivateMemory(kept, flat, sub);
    return elsewhere || hasOtherMemory(kept, flat, sub);
  };
  const foreign = quarantine.some((kept) => subs.some((sub) => blocks(kept, sub)));
  // Device memory that the target may skip is recorded as failed.
  const shown = subs.filter(({ at }) => {
    const cell = flat[at];
    return cell !== undefined && requires(target, policy, cell) && usesHostMemory(cast[target], cell.store >= PRIVATE);
  });
  const clear = quarantine.some((kept) => !kept.vague && shown.some((sub) => blocks(kept, sub)));
  if (clear) return { codes: ['ERR_RANGE_QUARANTINED'] };
  const needsFile =
    cast[target].accepts.backing === 'file' &&
    flat.some((_, page) => isUnmappablePrivatePage(flat, page, policy === 'required'));
  const all = new Map<CastName, Member>([...members, [target, { policy, joined: true }]]);
  const missable = (hit: Hit): boolean | undefined => isMissable(hit, [flat], [target], { members: all, cast });
  return dueForEither(hits, missable, (serious) => dueWith(needsFile, foreign, all, serious, hits));
}

/** Whether a target that needs files can neither map the page nor skip it. */
function isUnmappablePrivatePage(flat: ModelFlat, page: number, required: boolean): boolean {
  const cell = flat[page];
  return cell !== undefined && cell.store >= PRIVATE && (cell.kind === 'ram' || required);
}

/** @param hits all faults; `some` are those that may fail the change */
function dueWith(
  needsFile: boolean,
  near: boolean,
  members: ReadonlyMap<string, Member>,
  some: readonly Hit[],
  hits: readonly Hit[],
): Due {
  const also = near ? ['ERR_RANGE_QUARANTINED'] : [];
  const serious = some.filter((hit) => !isTolerated(hit, members));
  const [first] = serious;
  if (first === undefined) {
    if (!needsFile) return { codes: ['OK', ...also] };
    return { codes: ['ERR_FILE_REQUIRED', ...also, ...(hits.length > 0 ? ['ERR_ROLLBACK_FAILED'] : [])] };
  }
  // A batch that cannot be unmapped again fails with that error, whatever its first failure.
  const takeBack = serious.filter(({ op, on }) => op === 'take back' && on === first.on).length;
  const base = takeBack > 0 && first.op === 'map' ? 'ERR_UNMAP_FAILED' : first.code;
  const named = first.on === 'native' || needsFile ? {} : { target: first.on };
  if (needsFile || near || takeBack > 0) {
    return { codes: [base, first.code, 'ERR_ROLLBACK_FAILED', ...also, ...(needsFile ? ['ERR_FILE_REQUIRED'] : [])] };
  }
  // Failures after the first one occur in the rollback; the package may accept them for device memory.
  if (serious.length > 1) return { codes: ['ERR_ROLLBACK_FAILED'], ...named };
  return { codes: hits.at(-1) === first ? [base] : [base, 'ERR_ROLLBACK_FAILED'], ...named };
}
