/**
 * Checks docs/doctor.md against the ids of findings.
 */
import { readFileSync } from 'node:fs';
import test from 'ava';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('the guide of the doctor lists every finding once', (t) => {
  const [, type = ''] = /DoctorFindingId =([^;]*);/.exec(read('ts/doctor/finding.ts')) ?? [];
  const ids = [...type.matchAll(/\| '([a-z0-9-]+)'/g)].map(([, id = '']) => id);
  t.true(ids.includes('map-file'));
  const guide = read('docs/doctor.md');
  const tables = guide.slice(guide.indexOf('## Findings about the machine'), guide.indexOf('## Sources'));
  const rows = [...tables.matchAll(/^\| `(?!id`)([a-z0-9-]+)` /gm)].map(([, id = '']) => id);
  t.deepEqual(rows.toSorted(), ids.toSorted());
});
