/**
 * A diagnosis in a terminal: what is well in a sentence; for all else also what it was seen by, and the command that
 * mends it.
 */
import type { DeviceDiagnosis, Diagnosis, Finding, FindingState } from '../../doctor/finding.ts';
import { type Paint, item } from '../lines.ts';
import { idsText, functionKind } from '../topology/pci-text.ts';

const WIDTH = 100;
const STYLES = { ok: 'green', warning: 'yellow', blocked: 'red', unknown: 'cyan' } as const;
/** Before what a finding says: its state. */
const INDENT = ' '.repeat(11);

/** @param asked whether the devices were named; else those that VFIO does not have get a line each */
export function diagnosisLines({ machine, devices }: Diagnosis, asked: boolean, paint: Paint): string[] {
  const examined = devices.filter((each) => asked || isBound(each));
  const others = devices.filter((each) => !examined.includes(each));
  const lines = [paint('bold', 'this machine'), ...machine.flatMap((finding) => findingLines(finding, paint))];
  for (const { address, pci, findings } of examined) {
    lines.push('', `${paint('bold', address)} ${functionKind(pci)}, ${idsText(pci)}`);
    lines.push(...findings.flatMap((finding) => findingLines(finding, paint)));
  }
  if (others.length > 0) lines.push('', ...otherLines(others, paint));
  return [...lines, '', verdict([...machine, ...examined.flatMap(({ findings }) => findings)], paint)];
}

function findingLines({ state, says, evidence, fix }: Finding, paint: Paint): string[] {
  const [first = '', ...rest] = item(`  ${state.padEnd(9)}`, says, WIDTH);
  const lines = [first.replace(state, paint(STYLES[state], state)), ...rest];
  if (state === 'ok') return lines;
  lines.push(...item(`${INDENT}seen: `, evidence, WIDTH).map((line) => paint('dim', line)));
  // Never broken, so that it can be pasted.
  if (fix !== undefined) lines.push(`${INDENT}${paint('bold', `$ ${fix}`)}`);
  return lines;
}

function isBound({ findings }: DeviceDiagnosis): boolean {
  return findings.some(({ id, state }) => id === 'driver' && state === 'ok');
}

function otherLines(devices: readonly DeviceDiagnosis[], paint: Paint): string[] {
  return [
    paint('bold', "not VFIO's: name one, and it is examined"),
    ...devices.map(
      ({ address, pci }) => `  ${address} ${functionKind(pci)}, ${idsText(pci)}: driver ${pci.driver ?? 'none'}`,
    ),
  ];
}

function verdict(findings: readonly Finding[], paint: Paint): string {
  const count = (wanted: FindingState): number => findings.filter(({ state }) => state === wanted).length;
  const [blocked, warnings, unknown] = [count('blocked'), count('warning'), count('unknown')];
  const parts = [
    blocked === 0
      ? 'nothing is in the way'
      : blocked === 1
        ? '1 thing is in the way'
        : `${blocked} things are in the way`,
    ...(warnings === 0 ? [] : [warnings === 1 ? '1 warning' : `${warnings} warnings`]),
    ...(unknown === 0 ? [] : [unknown === 1 ? '1 thing is not known' : `${unknown} things are not known`]),
  ];
  return paint(blocked === 0 ? STYLES.ok : STYLES.blocked, parts.join('; '));
}
