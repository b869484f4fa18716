/**
 * Formats a diagnosis for a terminal: a sentence for each finding. Adds its evidence and remedy, unless it is `ok`.
 */
import type { DeviceDiagnosis, Diagnosis, DoctorFinding, DoctorFindingState } from '../../doctor/finding.ts';
import { type Paint, item } from '../lines.ts';
import type { IdsText } from '../topology/pci-ids.ts';
import { functionKind } from '../topology/pci-text.ts';

const WIDTH = 100;
const STYLES = { ok: 'green', warning: 'yellow', blocked: 'red', unknown: 'cyan' } as const;
/** Width of the column of states, which precedes the sentence of a finding. */
const INDENT = ' '.repeat(11);

/**
 * Returns the lines of a diagnosis.
 *
 * @param named whether the command line names the devices; if not, a device that is not bound to VFIO has one line
 */
export function diagnosisLines(
  { machine, devices }: Diagnosis,
  named: boolean,
  paint: Paint,
  idsText: IdsText,
): string[] {
  const examined = devices.filter((each) => named || isBound(each));
  const others = devices.filter((each) => !examined.includes(each));
  const lines = [paint('bold', 'this machine'), ...machine.flatMap((finding) => findingLines(finding, paint))];
  for (const { address, pci, findings } of examined) {
    const [first = '', ...rest] = item(`${address} `, `${functionKind(pci)}, ${idsText(pci)}`, WIDTH);
    lines.push('', first.replace(address, paint('bold', address)), ...rest);
    lines.push(...findings.flatMap((finding) => findingLines(finding, paint)));
  }
  if (others.length > 0) lines.push('', ...otherLines(others, paint, idsText));
  return [...lines, '', verdict([...machine, ...examined.flatMap(({ findings }) => findings)], paint)];
}

function findingLines({ state, text, evidence, fix }: DoctorFinding, paint: Paint): string[] {
  const [first = '', ...rest] = item(`  ${state.padEnd(9)}`, text, WIDTH);
  const lines = [first.replace(state, paint(STYLES[state], state)), ...rest];
  if (state === 'ok') return lines;
  lines.push(...item(`${INDENT}evidence: `, evidence, WIDTH).map((line) => paint('dim', line)));
  // Not wrapped, so that it can be pasted.
  if (fix !== undefined) lines.push(`${INDENT}${paint('bold', `$ ${fix}`)}`);
  return lines;
}

function isBound({ findings }: DeviceDiagnosis): boolean {
  return findings.some(({ id, state }) => id === 'driver' && state === 'ok');
}

function otherLines(devices: readonly DeviceDiagnosis[], paint: Paint, idsText: IdsText): string[] {
  return [
    paint('bold', 'not bound to VFIO: name a device to examine it'),
    ...devices.flatMap(({ address, pci }) =>
      item(`  ${address} `, `${functionKind(pci)}, ${idsText(pci)}: driver ${pci.driver ?? 'none'}`, WIDTH),
    ),
  ];
}

function verdict(findings: readonly DoctorFinding[], paint: Paint): string {
  const count = (wanted: DoctorFindingState): number => findings.filter(({ state }) => state === wanted).length;
  const [blocked, warnings, unknown] = [count('blocked'), count('warning'), count('unknown')];
  const parts = [
    blocked === 0 ? 'nothing is blocked' : blocked === 1 ? '1 finding is blocked' : `${blocked} findings are blocked`,
    ...(warnings === 0 ? [] : [warnings === 1 ? '1 warning' : `${warnings} warnings`]),
    ...(unknown === 0 ? [] : [unknown === 1 ? '1 fact is unknown' : `${unknown} facts are unknown`]),
  ];
  return paint(blocked === 0 ? STYLES.ok : STYLES.blocked, parts.join('; '));
}
