/**
 * The check of the API reference, which `npm run lint` makes of the package, finds what is wrong.
 */
import test from 'ava';
import { fileURLToPath } from 'node:url';

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
// JavaScript, since lint runs it as it is.
const load = async <T>(name: string): Promise<T> => (await import(path(`../../scripts/reference/${name}`))) as T;

interface Model {
  readonly project: object;
  readonly complaints: string[];
}

const { readModel } = await load<{ readModel(input: object): Promise<Model> }>('model.mjs');
const { findProblems } = await load<{ findProblems(project: object): string[] }>('checks.mjs');
const { unexportedTypes } = await load<{ unexportedTypes(files: string[]): string[] }>('closure.mjs');
const { subjectOf } = await load<{ subjectOf(file: string): string | undefined }>('subjects.mjs');

test('every fault is found, and nothing else', async (t) => {
  const { project, complaints } = await readModel({
    entryPoints: [path('faults.ts')],
    tsconfig: path('tsconfig.json'),
    readme: 'none',
  });
  t.deepEqual(findProblems(project), [
    'Faulty.bare has no description',
    'Faulty.nested.bare has no description',
    'Faulty.onlyTags has no description',
    'Faulty.read.offset has no unit: describe it',
    'Faulty.read.options.length has no unit: describe it',
    'ErrorCode "ERR_UNTOLD" has no description',
    'Faulty.kept is internal, and published',
    'Faulty.onlyTags names ERR_GONE, which is not an ErrorCode',
    'no description names ERR_UNTOLD',
  ]);
  const lacks = 'has no subject: scripts/reference/subjects.mjs lacks __test__/reference/faults.ts';
  t.deepEqual(complaints, [
    `ErrorCode ${lacks}`,
    `Faulty ${lacks}`,
    'The signature Faulty.write has an @param with name "options.gone", which was not used',
    'Hidden, defined in peerdma/__test__/reference/faults.ts, is referenced by Faulty.leak but not included in the documentation',
    'Failed to resolve link to "Nothing" in comment for Faulty',
  ]);
});

test('a sub-path exports the types that its signatures name, or the main entry point does', (t) => {
  const [main, subPath] = [path('faults.ts'), path('sub-path.ts')];
  t.deepEqual(unexportedTypes([main, subPath]), [
    `${main}: Faulty names Hidden, which is not exported`,
    `${subPath}: Pair names Absent, which is not exported`,
  ]);
});

test('a name belongs to the subject of its folder, or of its file', (t) => {
  t.is(subjectOf('dist/guest/ram.d.ts'), 'Guest memory');
  t.is(subjectOf('dist/guest/inspect.d.ts'), 'Inspection');
  t.is(subjectOf('dist/pci/simulated/simulated-bus.d.ts'), 'Simulated devices');
  t.is(subjectOf('dist/inspect.d.ts'), 'Inspection');
  t.is(subjectOf('dist/elsewhere/file.d.ts'), undefined);
});
