// Checks the API reference, and writes it to the folder of the command line, if any. Needs the declarations in dist.
import { findProblems } from './checks.mjs';
import { unexportedTypes } from './closure.mjs';
import { PACKAGE, readModel } from './model.mjs';

const [out] = process.argv.slice(2);
const { app, project, complaints } = await readModel(PACKAGE);
const problems = [...complaints, ...findProblems(project), ...unexportedTypes(PACKAGE.entryPoints)];
if (problems.length === 0 && out !== undefined) {
  await app.generateDocs(project, out);
  problems.push(...complaints);
}
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
